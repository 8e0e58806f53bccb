"""The toolkit's own method: its parts against slow loops, and what it does to a shifted problem."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from fedser import compute
from fedser.adapt import Schedule, Target, adapt, conclude, make, probabilities
from fedser.adapt.class_shares import balance
from fedser.adapt.distil import DistilSettings, distil
from fedser.adapt.method import Batch
from fedser.adapt.vectors import vectors


def draw(*shape: int, name: str = "fedser") -> torch.Tensor:
    return torch.randn(*shape, generator=compute.generator(name, *shape))


def slow(batch: Batch, fade: float) -> dict[str, float]:
    """The settings' formula with loops, with the default weights."""
    f, p, bank, size = batch.f, batch.p, batch.bank, len(batch.index)
    out = dict.fromkeys(("attraction", "dispersion", "neighbour", "supervised", "view"), 0.0)
    labels = [int(row.argmax()) for row in batch.targets] if batch.targets is not None else []
    for i, row in enumerate(batch.index.tolist()):
        near = sorted((k for k in range(12) if k != row), key=lambda k: -float(f[i] @ bank.features[k]))[:5]
        out["attraction"] -= sum(float(p[i] @ bank.scores[k]) for k in near) / size
        for j in range(size):
            out["dispersion"] += fade * float(p[i] @ p[j]) / size if j != i else 0.0
        below = math.log(sum(math.exp(float(f[i] @ bank.features[k]) / 0.2) for k in range(12) if k != row))
        out["neighbour"] += sum(below - float(f[i] @ bank.features[k]) / 0.2 for k in near) / len(near) / size
        if labels:
            below = math.log(sum(math.exp(float(f[i] @ f[j]) / 0.2) for j in range(size) if j != i))
            same = [j for j in range(size) if j != i and labels[j] == labels[i]]
            if same:
                each = sum(below - float(f[i] @ f[j]) / 0.2 for j in same) / len(same)
                out["supervised"] += each / sum(labels.count(k) > 1 for k in labels)
            t = batch.targets[i]
            out["view"] += 3.0 * sum(float(t[c] * (t[c].log() - p[i, c].log())) for c in range(3)) / size
    return out


def targets_of(count: int) -> torch.Tensor:
    return draw(count, 3, name="targets").double().softmax(dim=1)


def test_every_term_equals_a_slow_loop(batch_of) -> None:
    batch = replace(batch_of(6, 12, 3, 0, targets_of(6)), progress=0.5)
    found = {name: float(value) for name, value in make("fedser").loss(batch).items()}
    assert found == pytest.approx(slow(batch, fade=1 / 6), abs=1e-5)


def test_the_linear_view_waits_for_its_share_of_the_schedule(batch_of) -> None:
    batch = batch_of(6, 12, 3, 0, targets_of(6))
    early = make("fedser").loss(replace(batch, progress=0.29))
    assert set(early) == {"attraction", "dispersion", "neighbour"}
    assert set(make("fedser").loss(replace(batch, progress=0.3))) == {*early, "view", "supervised"}
    bare = make("fedser", {"view_weight": 0.0, "supervised_weight": 0.0, "neighbour_weight": 0.0})
    assert set(bare.loss(replace(batch, progress=0.9))) == {"attraction", "dispersion"}


def test_without_the_view_and_the_contrast_it_is_aad(batch_of) -> None:
    batch = replace(batch_of(6, 12, 3, 1), progress=0.4)
    bare = make("fedser", {"view_weight": 0.0, "supervised_weight": 0.0, "neighbour_weight": 0.0})
    assert {k: float(v) for k, v in bare.loss(batch).items()} == {
        k: float(v) for k, v in make("aad").loss(batch).items()
    }


def test_the_view_is_logistic_regression_on_the_networks_and_the_published_answers() -> None:
    x, p = draw(60, 4), draw(60, 3, name="p").softmax(dim=1)
    source = draw(60, 3, name="source").softmax(dim=1)
    labels = (p + 0.5 * source).argmax(dim=1)
    assert not torch.equal(labels, p.argmax(dim=1))
    peer = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(x.double(), labels)
    found = make("fedser").refresh(x, draw(60, 5), p, source)
    assert torch.allclose(found, torch.from_numpy(peer.predict_proba(x.double())).float(), atol=1e-5)


def test_one_predicted_class_leaves_nothing_to_fit() -> None:
    p = torch.tensor([[1.0, 0.0]]).repeat(8, 1)  # the other class is absent
    assert make("fedser").refresh(draw(8, 4), draw(8, 5), p, p) is p


def test_balance_keeps_rows_and_moves_shares_to_their_aim() -> None:
    p = (draw(400, 4) + torch.tensor([2.0, 0.0, 0.0, -1.0])).softmax(dim=1)
    even = balance(p, torch.full((4,), 0.25), 1.0)
    assert torch.allclose(even.sum(dim=1), torch.ones(400), atol=1e-5)
    assert torch.allclose(even.mean(dim=0), torch.full((4,), 0.25), atol=1e-3)
    half = balance(p, torch.full((4,), 0.25), 0.5).mean(dim=0)
    assert torch.allclose(half, (p.mean(dim=0) + 0.25) / 2, atol=1e-3)
    assert torch.allclose(balance(p, torch.full((4,), 0.25), 0.0), p, atol=1e-5)


def test_balance_leaves_absent_classes_absent() -> None:
    p = torch.cat([draw(30, 2).softmax(dim=1), torch.zeros(30, 1)], dim=1)
    found = balance(p, torch.tensor([0.5, 0.5, 0.0]), 1.0)
    assert torch.equal(found[:, 2], torch.zeros(30))
    assert torch.allclose(found.mean(dim=0), torch.tensor([0.5, 0.5, 0.0]), atol=1e-3)


def test_what_linear_eyes_see() -> None:
    assert torch.equal(vectors(draw(3, 7), draw(3, 2)), draw(3, 7))
    spectrogram = draw(3, 4, 9)
    seen = vectors(spectrogram, draw(3, 2))
    assert seen.shape == (3, 8)
    assert float(seen[1, 2]) == pytest.approx(sum(spectrogram[1, 2].tolist()) / 9, abs=1e-6)
    assert torch.equal(vectors(torch.zeros(3, 1, 16000), draw(3, 2)), functional.normalize(draw(3, 2), dim=1))
    assert torch.equal(vectors(torch.zeros(3, 19968), draw(3, 2)), functional.normalize(draw(3, 2), dim=1))


def test_it_undoes_a_shift(shifted) -> None:
    schedule = Schedule(epochs=20, learning_rate=2e-2, batch_size=32)
    before = shifted.accuracy(shifted.model)
    after = shifted.accuracy(adapt(shifted.model, shifted.x, make("fedser"), schedule, seed=0).model)
    assert after > max(before + 0.05, 0.9)


def test_absent_classes_stay_absent(shifted) -> None:
    mask = torch.tensor([True, True, False])
    found = adapt(shifted.model, shifted.x, make("fedser"), Schedule(epochs=3), seed=0, class_mask=mask)
    assert found.steps == 6
    assert all(bool(p.isfinite().all()) for p in found.model.parameters())


def test_an_adaptation_in_parts_concluded_is_the_whole_one(shifted) -> None:
    """The last stage needs nothing but the adapted network, the published ones and the site."""
    method = make("fedser", {"student_steps": 30})
    schedule = Schedule(epochs=3, learning_rate=2e-2)
    whole = adapt(shifted.model, shifted.x, method, schedule, seed=3)
    part = adapt(shifted.model, shifted.x, method, schedule, seed=3, whole=False)
    ended = conclude(part.model, shifted.model, shifted.x, method, seed=3)
    assert torch.equal(probabilities(whole.model, shifted.x), probabilities(ended, shifted.x))
    assert not torch.equal(probabilities(part.model, shifted.x), probabilities(ended, shifted.x))
    bare = adapt(shifted.model, shifted.x, make("fedser", {"student_steps": 0}), schedule, seed=3)
    assert torch.equal(probabilities(bare.model, shifted.x), probabilities(part.model, shifted.x))


def test_the_student_learns_what_its_teachers_say(shifted) -> None:
    """Published answers that are wrong on purpose: nothing but they can have taught it."""
    target = (shifted.y + 1) % 3
    wrong, own = functional.one_hot(target, 3).float(), DistilSettings(steps=300)
    shape = (shifted.x, None, 0, own)

    def share(model: torch.nn.Module) -> float:
        return float((probabilities(model, shifted.x).argmax(dim=1) == target).float().mean())

    misled = distil(shifted.model, wrong, *shape)
    site = Target(shifted.x, None, None, seed=0)
    assert share(make("fedser", {"student_steps": 300}).conclude(misled, site, wrong)) > 0.95
    assert share(distil(shifted.model, wrong, *shape, torch.full_like(wrong, 1 / 3))) > 0.9  # of the published alone
    assert share(make("fedser", {"student_steps": 300}).conclude(shifted.model, site, wrong)) < 0.5  # the network's


def test_a_class_that_does_not_occur_is_not_taught(shifted) -> None:
    mask = torch.tensor([True, True, False])
    method = make("fedser", {"student_steps": 50})
    found = adapt(shifted.model, shifted.x, method, Schedule(epochs=2), seed=0, class_mask=mask)
    assert torch.equal(probabilities(found.model, shifted.x, class_mask=mask)[:, 2], torch.zeros(len(shifted.x)))
