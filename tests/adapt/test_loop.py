"""The loop: seeds, slices of a schedule, what stays untouched, masks, small sites, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from fedser import compute
from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.method import Gradient
from fedser.adapt.optimiser import batches
from fedser.errors import ConfigError, TooLittleDataError, UsageError
from fedser.models import EmotionClassifier, ModelSettings, initialise

CLASSES = ("anger", "fear", "sadness")
QUICK = Schedule(epochs=2, batch_size=8)


def source(**values: object) -> EmotionClassifier:
    settings = ModelSettings.model_validate({"hidden": 16, "bottleneck": 8} | values)
    model = EmotionClassifier(settings, (6,), CLASSES)
    initialise(model, compute.generator("test"))
    return model.eval()


def utterances(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 6, generator=compute.generator("x", seed))


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def test_the_same_seed_gives_the_same_model_and_leaves_all_else_alone():
    model, x = source(), utterances(30)
    kept, state = source(), torch.random.get_rng_state()
    first = adapt(model, x, make("ecan"), QUICK, seed=1)
    torch.manual_seed(99)
    again = adapt(model, x, make("ecan"), QUICK, seed=1)
    torch.random.set_rng_state(state)
    other = adapt(model, x, make("ecan"), QUICK, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(first.model, again.model)
    assert not same(first.model, other.model)
    assert same(model, kept)
    assert first.history == again.history


def test_head_and_frozen_parameters_stay_and_the_rest_moves():
    model = source()
    adapted = adapt(model, utterances(30), make("ecan"), QUICK, seed=1, frozen=model.first_layer())
    before = dict(model.named_parameters())
    for name, parameter in adapted.model.named_parameters():
        stays = name.startswith("head.") or name in model.first_layer()
        # A bias before batch normalisation has no gradient of its own; weight decay leaves a zero at zero.
        if stays or not name.endswith(".bias"):
            assert torch.equal(parameter, before[name]) == stays, name
    assert all(parameter.requires_grad for parameter in adapted.model.parameters())
    assert not adapted.model.training


def test_head_moves_when_the_method_says_so():
    model = source()
    adapted = adapt(model, utterances(30), make("ecan", {"freeze_head": False}), QUICK, seed=1)
    assert not torch.equal(adapted.model.head.direction, model.head.direction)


def test_history_has_one_entry_an_epoch_with_the_parts():
    adapted = adapt(source(), utterances(30), make("ecan"), QUICK, seed=1)
    assert adapted.steps == 6
    assert [entry["epoch"] for entry in adapted.history] == [0, 1]
    assert [entry["step"] for entry in adapted.history] == [2, 5]
    for entry in adapted.history:
        parts = entry["neighbour"] + entry["supervised"] + entry["diversity"]
        assert entry["loss"] == pytest.approx(parts, rel=1e-5)
        assert 0 <= entry["entropy"] <= math.log(3)


def test_weights_of_zero_switch_terms_off():
    off = {"neighbour_weight": 0, "supervised_weight": 0}
    adapted = adapt(source(), utterances(20), make("ecan", off), QUICK, seed=1)
    assert set(adapted.history[0]) == {"epoch", "step", "loss", "diversity", "entropy"}
    model = source()
    nothing = adapt(model, utterances(20), make("ecan", off | {"diversity_weight": 0}), QUICK, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(nothing.model.parameters(), model.parameters(), strict=True))


def test_order_of_batches():
    """Each epoch shows full batches of distinct rows; a slice of the schedule sees the same batches."""
    schedule = Schedule(batch_size=8)
    whole = [rows.tolist() for rows in batches(30, schedule, 5, 0, 7)]
    assert [len(rows) for rows in whole] == [8] * 7
    assert len({row for rows in whole[:3] for row in rows}) == 24
    assert whole[0] != whole[3]
    assert [rows.tolist() for rows in batches(30, schedule, 5, 2, 5)] == whole[2:]
    assert [rows.tolist() for rows in batches(30, schedule, 6, 0, 7)] != whole
    assert [sorted(rows.tolist()) for rows in batches(3, schedule, 5, 0, 2)] == [[0, 1, 2]] * 2


def test_learning_rate_follows_the_formula():
    schedule = Schedule(learning_rate=0.01, decay=0.75)
    assert schedule.rate(0.0) == pytest.approx(0.01)
    assert schedule.rate(0.3) == pytest.approx(0.01 * 4**-0.75)
    assert Schedule(steps=7).total(1000) == 7
    assert Schedule(epochs=3).total(130) == 6
    assert Schedule(epochs=3).total(5) == 3


class Pull(Gradient):
    """A loss whose gradient is 1 for each coordinate of the bottleneck's bias."""

    name = "pull"

    def trainable(self, model):
        return ("bottleneck.1.bias",)

    def loss(self, batch):
        return {"pull": batch.b.mean(dim=0).sum()}


def test_steps_equal_sgd_by_hand_over_two_slices():
    """Nesterov SGD with weight decay and the annealed rate, computed with plain numbers for one weight."""
    schedule = Schedule(batch_size=8, learning_rate=0.1, weight_decay=0.01, momentum=0.9)
    model, x = source(), utterances(16)
    method = Pull(Pull.settings_type())
    parts = [(0, 3), (3, 2)]
    weight, expected = 0.0, []
    for start, steps in parts:
        velocity = None
        for step in range(start, start + steps):
            gradient = 1.0 + 0.01 * weight
            velocity = gradient if velocity is None else 0.9 * velocity + gradient
            weight -= 0.1 * (1 + 10 * step / 5) ** -0.75 * (gradient + 0.9 * velocity)
        expected.append(weight)
    for (start, steps), value in zip(parts, expected, strict=True):
        model = adapt(model, x, method, schedule, seed=0, start=start, total=5, steps=steps).model
        torch.testing.assert_close(model.bottleneck[1].bias, torch.full((8,), value))


class Spy(Gradient):
    """Records what the loop hands to a method."""

    name = "spy"
    refreshes = True

    def __init__(self, settings):
        super().__init__(settings)
        self.seen = []

    def refresh(self, x, b, p, source):
        return torch.arange(len(p))

    def loss(self, batch):
        self.seen.append(batch)
        return {"p": batch.p.square().sum()}


def test_what_a_method_sees():
    method = Spy(Spy.settings_type())
    mask = torch.tensor([True, False, True])
    x = utterances(20)
    adapt(source(), x, method, QUICK, seed=0, class_mask=mask, start=1, total=10, steps=4)
    assert [batch.progress for batch in method.seen] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    for batch in method.seen:
        assert torch.equal(batch.targets, batch.index)
        torch.testing.assert_close(batch.f, batch.b / batch.b.norm(dim=1, keepdim=True))
        assert batch.p[:, 1].abs().max() == 0
        torch.testing.assert_close(batch.p.sum(dim=1), torch.ones(8))
        assert len(batch.bank) == 20
        assert not batch.bank.scores.requires_grad
    last = method.seen[-1]
    assert torch.equal(last.bank.features[last.index], last.f)
    assert torch.equal(last.bank.scores[last.index], last.p)
    assert last.bank.scores[:, 1].abs().max() == 0


def test_backbone_scale_slows_the_encoder_alone():
    still = Schedule(epochs=1, batch_size=8, backbone_scale=0.0)
    model = source()
    adapted = adapt(model, utterances(16), make("ecan"), still, seed=0).model
    assert torch.equal(adapted.encoder.layers[0].weight, model.encoder.layers[0].weight)
    assert not torch.equal(adapted.bottleneck[0].weight, model.bottleneck[0].weight)


@pytest.mark.parametrize("count", [2, 3, 9])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_small_sites(count, norm):
    adapted = adapt(source(norm=norm), utterances(count), make("ecan"), Schedule(epochs=3), seed=0)
    assert adapted.steps == 3
    assert probabilities(adapted.model, utterances(count)).isfinite().all()


def test_too_few_utterances():
    for count in (0, 1):
        with pytest.raises(TooLittleDataError, match=f"at least 2 utterances, and there are {count}"):
            adapt(source(), utterances(count), make("ecan"), QUICK, seed=0)
    assert adapt(source(), utterances(1), make("source"), seed=0).steps == 0
    with pytest.raises(TooLittleDataError):
        adapt(source(), utterances(0), make("source"), seed=0)


def test_on_step_counts_the_steps_of_this_call():
    seen: list[int] = []
    adapt(source(), utterances(16), make("ecan"), QUICK, seed=0, start=1, on_step=seen.append)
    assert seen == [1, 2, 3]


def test_refusals():
    model, x, ecan = source(), utterances(16), make("ecan")
    with pytest.raises(UsageError, match="shape"):
        adapt(model, x[:, :5], ecan, QUICK, seed=0)
    with pytest.raises(UsageError, match="mask"):
        adapt(model, x, ecan, QUICK, seed=0, class_mask=torch.zeros(3, dtype=torch.bool))
    with pytest.raises(UsageError, match="mask"):
        adapt(model, x, ecan, QUICK, seed=0, class_mask=torch.ones(2, dtype=torch.bool))
    with pytest.raises(UsageError, match="no parameter 'encoder_x'"):
        adapt(model, x, ecan, QUICK, seed=0, frozen=["encoder_x"])
    with pytest.raises(UsageError, match="all parameters are frozen"):
        adapt(model, x, ecan, QUICK, seed=0, frozen=model.adaptable())
    with pytest.raises(ConfigError, match="outside a schedule of 3"):
        adapt(model, x, ecan, QUICK, seed=0, start=2, total=3, steps=2)
    with pytest.raises(ConfigError, match="diverged"):
        adapt(model, x, Pull(Pull.settings_type()), Schedule(learning_rate=1e38), seed=0)


def test_probabilities_mask_temperature_and_mode():
    model, x = source().train(), utterances(7)
    mask = torch.tensor([True, False, True])
    p = probabilities(model, x, temperature=2.0, class_mask=mask)
    assert model.training
    with torch.no_grad():
        logits = model.eval()(x)
    expected = [[math.exp(row[0] / 2), 0.0, math.exp(row[2] / 2)] for row in logits.tolist()]
    expected = [[value / sum(row) for value in row] for row in expected]
    torch.testing.assert_close(p, torch.tensor(expected))
