"""DINE: nothing of the source but its answers is used, the teacher, and a shift that it repairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.adapt import adapt, dine, distil, make, probabilities
from fedser.adapt.distil import still_statistics, top_and_spread
from fedser.errors import ConfigError, TooLittleDataError
from fedser.models import EmotionClassifier, ModelSettings, initialise

QUICK = {"steps": 12}


class Remote(EmotionClassifier):
    """A service of the same architecture that answers as another model does; its own weights are all NaN."""

    def __init__(self, behind: EmotionClassifier) -> None:
        super().__init__(behind.settings, behind.shape, behind.classes)
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, float("nan"))
        self.behind = [behind]  # in a list, so that it is no part of this module

    def forward(self, x):
        return self.behind[0](x)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_answers_are_all_that_it_takes_from_the_source(shifted):
    there = adapt(shifted.model, shifted.x, make("dine", QUICK), seed=3).model
    remote = adapt(Remote(shifted.model), shifted.x, make("dine", QUICK), seed=3).model
    assert same(there, remote)
    other = adapt(shifted.model, shifted.x, make("dine", QUICK), seed=4).model
    assert not same(there, other)


def test_answers_of_another_source_give_another_student(shifted):
    """The control of the test above: it would notice a student that ignores its teacher."""
    other = EmotionClassifier(shifted.model.settings, shifted.model.shape, shifted.model.classes)
    initialise(other, compute.generator("another"))
    there = adapt(shifted.model, shifted.x, make("dine", QUICK), seed=3).model
    assert not same(there, adapt(other.eval(), shifted.x, make("dine", QUICK), seed=3).model)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), classes=st.integers(1, 5), absent=st.integers(0, 4))
def test_top_and_spread_equals_the_loop(seed, rows, classes, absent):
    draw = compute.generator("top", seed)
    mask = torch.ones(classes, dtype=torch.bool)
    mask[torch.randperm(classes, generator=draw)[: min(absent, classes - 1)]] = False
    logits = torch.randn(rows, classes, generator=draw, dtype=torch.float64)
    p = logits.masked_fill(~mask, -1e9).softmax(dim=1)
    found = top_and_spread(p, mask)
    for i, row in enumerate(p.tolist()):
        best = row.index(max(row))
        for c in range(classes):
            others = int(mask.sum()) - 1
            expected = row[best] if c == best else (1 - row[best]) / others if mask[c] else 0.0
            assert found[i, c].item() == pytest.approx(expected, abs=1e-12)
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * rows)


def watched(monkeypatch):
    """What is asked of models, and what the student is taught in each step, as lists that fill."""
    answers, teachers = [], []

    def asked(*arguments, **named):
        answers.append(probabilities(*arguments, **named))
        return answers[-1]

    def seen(teacher, logits):
        teachers.append(teacher)
        return real(teacher, logits)

    real = distil.divergence
    monkeypatch.setattr(dine, "probabilities", asked)
    monkeypatch.setattr(distil, "probabilities", asked)
    monkeypatch.setattr(distil, "divergence", seen)
    return answers, teachers


def same_rows(teacher, expected):
    """Each step sees all rows, in an order of its own."""
    ours, theirs = (rows[rows[:, 0].argsort()] for rows in (teacher, expected))
    torch.testing.assert_close(ours, theirs)


def test_the_teacher_moves_towards_the_student_part_by_part(shifted, monkeypatch):
    answers, teachers = watched(monkeypatch)
    x = shifted.x[:20]  # one batch of all rows, in another order in each step
    adapt(shifted.model, x, make("dine", {"steps": 4, "updates": 2, "mixup_weight": 0}), seed=0)
    assert len(answers) == 2  # the source once, the student once
    old = top_and_spread(answers[0])
    new = 0.6 * old + 0.4 * answers[1]
    for teacher, expected in zip(teachers, [old, old, new, new], strict=True):
        same_rows(teacher, expected)


def test_a_second_teacher_takes_over(shifted, monkeypatch):
    answers, teachers = watched(monkeypatch)
    x = shifted.x[:20]
    draw = compute.generator("teachers")
    first, second = (torch.rand(20, 3, generator=draw).softmax(dim=1) for _ in range(2))
    own = distil.DistilSettings(steps=4, updates=4, mixup_weight=0)
    distil.distil(shifted.model, first, x, None, 0, own, second)
    old = top_and_spread(first)
    both = (2 * second + answers[0]) / 3  # a third of four steps: after the first
    later = 0.6 * both + 0.4 * answers[1]
    for teacher, expected in zip(teachers, [old, both, later, 0.6 * later + 0.4 * answers[2]], strict=True):
        same_rows(teacher, expected)


def test_mixtures_leave_the_running_statistics_alone():
    model = EmotionClassifier(ModelSettings(hidden=8, bottleneck=4), (6,), ("a", "b"))
    initialise(model, compute.generator("still"))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    x = 5 + torch.randn(9, 6, generator=compute.generator("x"))
    with still_statistics(model):
        model(x)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    model(x)
    assert not any(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_the_same_seed_gives_the_same_student_and_leaves_all_else_alone(shifted):
    kept = {name: value.clone() for name, value in shifted.model.state_dict().items()}
    state = torch.random.get_rng_state()
    first = adapt(shifted.model, shifted.x, make("dine", QUICK), seed=1).model
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(first, adapt(shifted.model, shifted.x, make("dine", QUICK), seed=1).model)
    torch.random.set_rng_state(state)
    assert all(torch.equal(value, kept[name]) for name, value in shifted.model.state_dict().items())
    assert not first.training


def test_it_repairs_a_shift(shifted):
    adapted = adapt(shifted.model, shifted.x, make("dine", {"steps": 400}), seed=0).model
    assert shifted.accuracy(adapted) > shifted.accuracy(shifted.model) + 0.02


def test_masked_classes_small_sites_and_refusals(shifted):
    mask = torch.tensor([True, False, True])
    model = adapt(shifted.model, shifted.x, make("dine", {"steps": 50}), seed=0, class_mask=mask).model
    p = probabilities(model, shifted.x, class_mask=mask)
    assert p[:, 1].max() == 0
    assert set(p.argmax(dim=1).tolist()) == {0, 2}
    alone = torch.tensor([False, True, False])
    for given_mask in (None, alone):
        small = adapt(shifted.model, shifted.x[:2], make("dine", QUICK), seed=0, class_mask=given_mask).model
        assert small(shifted.x).isfinite().all()
    with pytest.raises(TooLittleDataError, match="at least 2"):
        adapt(shifted.model, shifted.x[:1], make("dine"), seed=0)
    with pytest.raises(ConfigError, match="diverged"):
        adapt(shifted.model, shifted.x, make("dine", {"steps": 5, "learning_rate": 1e38}), seed=0)
