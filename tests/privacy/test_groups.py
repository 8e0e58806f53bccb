"""Private steps over groups: who is coupled with whom, what one unit can move, and what the noise is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedser.adapt import Bank, Batch, Schedule, make
from fedser.adapt.method import Gradient
from fedser.compute import generator
from fedser.errors import PrivacyError
from fedser.losses import supervised_contrastive
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.privacy import group_optimiser
from fedser.privacy.group_losses import gradients_of, supports
from fedser.privacy.group_optimiser import GroupOptimiser
from fedser.privacy.group_steps import GroupSettings, PrivateSteps, private_steps, trained_names
from fedser.privacy.groups import Groups, bucket, views
from fedser.privacy.settings import PrivacySettings

CLASSES = ("anger", "neutral", "sadness")
FEATURES = 6
KEY = bytes(range(32))
SCHEDULE = Schedule(learning_rate=0.1, input_noise=0.2, weight_decay=0.0)


def model() -> EmotionClassifier:
    made = EmotionClassifier(ModelSettings(hidden=8, depth=1, bottleneck=4), (FEATURES,), CLASSES)
    initialise(made, generator("test model"))
    return made.eval()


def features(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, FEATURES, generator=generator("test features", seed))


def everybody(_: float, units: int) -> np.ndarray:
    return np.ones(units, dtype=bool)


def run(x: Tensor, units: Sequence[str | None], method: str = "ecan", **options: Any) -> PrivateSteps:
    settings = replace(GroupSettings(size=8, groups=4, trained="all"), **options)
    return PrivateSteps(model(), x, units, make(method), SCHEDULE, settings, key=KEY)


def names(count: int) -> list[str]:
    return [f"speaker-{number}" for number in range(count)]


# ------------------------------------------------------------------------------------------------ assignment


def test_without_one_unit_no_other_changes_its_group() -> None:
    everyone = names(200)
    whole = Groups.of(everyone, 16, KEY, together=True)
    for gone in (0, 7, 199):
        rest = Groups.of([name for name in everyone if name != everyone[gone]], 16, KEY, together=True)
        assert (
            dict(zip(rest.units, rest.group, strict=True)).items()
            <= dict(zip(whole.units, whole.group, strict=True)).items()
        )


def test_the_hash_is_even_and_its_key_secret() -> None:
    counts = np.bincount([bucket(name, 8, KEY) for name in names(8000)], minlength=8)
    assert counts.min() > 850
    assert counts.max() < 1150
    assert [bucket(n, 8, KEY) for n in names(50)] != [bucket(n, 8, bytes(32)) for n in names(50)]
    assert "key" not in repr(Groups.of(names(3), 4, KEY, together=True))
    fresh = [PrivateSteps(model(), features(4), names(4), make("ecan"), SCHEDULE, GroupSettings()) for _ in range(2)]
    assert fresh[0].groups.key != fresh[1].groups.key
    assert len(fresh[0].groups.key) == 32


def test_utterances_of_unknown_speakers_are_left_out() -> None:
    groups = Groups.of(["a", None, "b", None, "a"], 4, KEY, together=False)
    assert groups.units == ("a", "b")
    assert groups.rows == ((0, 4), (2,))


def test_each_unit_has_a_coin_of_its_own() -> None:
    groups = Groups.of(names(6), 2, KEY, together=True)
    drawn = groups.drawn(np.array([True, False, True, False, False, True]))
    assert sorted(row for rows in drawn.values() for row in rows) == [0, 2, 5]


# ---------------------------------------------------------------------------------------------------- views


def test_a_small_group_is_filled_with_its_own_views_alone() -> None:
    x = torch.arange(5.0).repeat_interleave(FEATURES).view(5, FEATURES) * 100
    groups = Groups.of(["a", "a", "b", "b", "b"], 4, KEY, together=False)
    made = views(x, groups, groups.drawn(np.ones(2, dtype=bool)), 7, 0.5, 0)
    assert made.shape == (2, 7, FEATURES)
    near = (made.mean(dim=2) / 100).round().int().tolist()
    assert set(near[0]) == {0, 1}
    assert set(near[1]) == {2, 3, 4}
    assert not torch.equal(made[0, 0], made[0, 2])  # the same utterance under fresh noise


def test_what_a_group_draws_depends_on_no_other() -> None:
    x, units = features(12), ["a"] * 5 + ["b"] * 7
    both = Groups.of(units, 4, KEY, together=False)
    alone = Groups.of(units[5:], 4, KEY, together=False)
    of_both = views(x, both, both.drawn(np.ones(2, dtype=bool)), 4, 0.5, 3)
    of_one = views(x[5:], alone, alone.drawn(np.ones(1, dtype=bool)), 4, 0.5, 3)
    assert torch.equal(of_both[1], of_one[0])


# ------------------------------------------------------------------------------------------------ gradients


def by_loop(network: EmotionClassifier, method: Gradient, x: Tensor, trained: Sequence[str]) -> list[list[Tensor]]:
    """The slow oracle: each group alone, as a whole site, through autograd and the method's own loss."""
    found = []
    for group in x:
        b = network.embed(group)
        logits = network.classify(b)
        f, p = functional.normalize(b, dim=1), logits.softmax(dim=1)
        batch = Batch(torch.arange(len(group)), b, f, p, logits, Bank(b, p), None, 0.25)
        loss = torch.stack(list(method.loss(batch).values())).sum()
        found.append(list(torch.autograd.grad(loss, [network.get_parameter(name) for name in trained])))
    return found


@pytest.mark.parametrize("name", ["ecan", "aad"])
def test_gradients_of_all_groups_at_once_are_those_of_a_loop(name: str) -> None:
    network, method = model(), make(name)
    assert isinstance(method, Gradient)
    x = torch.stack([features(9, seed) for seed in range(5)])
    trained = [each for each in network.adaptable() if each in method.trainable(network)]
    at_once = gradients_of(network, method, tuple(trained))(x, 0.25)
    for group, slow in enumerate(by_loop(network, method, x, trained)):
        for each, gradient in zip(trained, slow, strict=True):
            torch.testing.assert_close(at_once[each][group], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("encoder", ["vgg11", "resnet"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_so_they_are_behind_every_encoder(encoder: Any, norm: Any) -> None:
    settings = ModelSettings(encoder=encoder, norm=norm, width=4, hidden=8, bottleneck=4)
    network = EmotionClassifier(settings, (40, 40), CLASSES)
    initialise(network, generator("every encoder"))
    network.eval().requires_grad_(False)  # what is trained is the caller's to name
    method = make("ecan")
    assert isinstance(method, Gradient)
    x = torch.randn(2, 6, 40, 40, generator=generator("every encoder", "x"))
    trained = trained_names(network, method, "affine_head", network.adaptable())
    at_once = gradients_of(network, method, tuple(trained))(x, 0.25)
    for group, slow in enumerate(by_loop(network.requires_grad_(True), method, x, trained)):
        for each, gradient in zip(trained, slow, strict=True):
            torch.testing.assert_close(at_once[each][group], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 9, 20])
@pytest.mark.parametrize("name", ["ecan", "aad"])
def test_a_groups_gradient_is_bit_for_bit_the_same_whichever_others_are_there(name: str, size: int) -> None:
    network, method = EmotionClassifier(ModelSettings(), (FEATURES,), CLASSES), make(name)
    initialise(network, generator("bit for bit"))
    network.eval()
    assert isinstance(method, Gradient)
    x = torch.stack([features(size, seed) for seed in range(40)])
    gradients = gradients_of(network, method, tuple(network.adaptable()))
    whole = gradients(x, 0.0)
    for some in (slice(1, 40), slice(7, 20), slice(39, 40)):
        for each, gradient in gradients(x[some], 0.0).items():
            assert torch.equal(gradient, whole[each][some])


def test_a_layer_that_is_used_twice_is_refused() -> None:
    network, method = model(), make("ecan")
    assert isinstance(method, Gradient)
    network.bottleneck.append(network.bottleneck[1])
    with pytest.raises(PrivacyError, match="twice"):
        gradients_of(network, method, ("bottleneck.1.weight",))(features(9)[None], 0.0)


@pytest.mark.parametrize("name", ["shot", "nrc", "gsfda", "fedser", "tent", "dine", "logreg_self"])
def test_other_methods_are_refused_with_the_nearest_sound_setting(name: str) -> None:
    assert not supports(make(name))
    with pytest.raises(PrivacyError) as caught:
        run(features(8), names(8), name)
    assert "ecan" in caught.value.hint
    assert "site" in caught.value.hint


def test_what_is_trained_is_named_and_nothing_else_moves() -> None:
    network = model()
    ecan = make("ecan")
    assert isinstance(ecan, Gradient)
    everything = network.adaptable()
    assert trained_names(network, ecan, "head", everything) == ["head.direction", "head.magnitude", "head.bias"]
    affine = trained_names(network, ecan, "affine", everything)
    assert all(network.get_parameter(name).dim() == 1 for name in affine)
    assert len(affine) == 4
    with pytest.raises(PrivacyError):
        trained_names(network, ecan, "head", ["bottleneck.0.weight"])
    settings = GroupSettings(groups=4, size=8, trained="affine")
    after = private_steps(network, features(20), names(20), ecan, SCHEDULE, settings, steps=3)
    moved = {n for n, t in after.state_dict().items() if not torch.equal(t, network.state_dict()[n])}
    assert moved == set(affine)  # neither the head nor the statistics of batch normalisation


# ---------------------------------------------------------------------------------- clipping, noise, normaliser


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
@pytest.mark.parametrize("name", ["ecan", "aad"])
def test_no_unit_moves_the_sum_by_more_than_the_clip(unit: str, name: str) -> None:
    clip, chance = 1e-3, np.random.default_rng(3)  # so short that every gradient is cut
    units = [f"s{row // 5}" if unit == "speaker" else f"u{row}" for row in range(40)]
    for seed in range(12):
        x = features(40, seed) * float(chance.uniform(0.2, 4))
        together = unit == "utterance"
        whole = run(x, units, name, clip=clip, together=together)
        gone = units[int(chance.integers(40))]
        kept = [row for row in range(40) if units[row] != gone]
        coins = chance.random(len(whole.groups.units)) < 0.7
        coins[whole.groups.units.index(gone)] = True
        rest = run(x[kept], [units[row] for row in kept], name, clip=clip, together=together)
        shown = np.delete(coins, whole.groups.units.index(gone))
        moved = whole.clipped_sum(coins=lambda *_, c=coins: c) - rest.clipped_sum(coins=lambda *_, c=shown: c)
        assert 0.0 < float(moved.norm()) <= clip


def test_clipping_each_utterance_of_a_coupled_loss_is_caught() -> None:
    """The ordinary way, as Opacus' hooks have it: an utterance's gradient is what flows through its own embedding.

    Each is cut to 1, and yet one utterance moves the sum by more: it stands in the others' gradients too.
    """
    worst = 0.0
    for seed in range(40):
        f = functional.normalize(features(16, seed), dim=1)
        labels = torch.arange(16) % 2
        worst = max(worst, float((clipped_one_by_one(f, labels) - clipped_one_by_one(f[1:], labels[1:])).norm()))
    assert worst > 1.2


def clipped_one_by_one(f: Tensor, labels: Tensor) -> Tensor:
    weight = torch.eye(FEATURES, requires_grad=True)
    total = torch.zeros(FEATURES, FEATURES)
    for row in range(len(f)):
        seen = functional.normalize(f @ weight, dim=1)
        others = torch.cat([seen[:row].detach(), seen[row : row + 1], seen[row + 1 :].detach()])
        (gradient,) = torch.autograd.grad(len(f) * supervised_contrastive(others, labels, 0.1), weight)
        total += gradient / gradient.norm().clamp_min(1.0)
    return total


def test_the_optimiser_cuts_each_group_and_divides_by_the_public_number() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    sgd = torch.optim.SGD([parameter], lr=1.0)
    private = GroupOptimiser(sgd, radius=1.0, std=0.0, normaliser=10.0)
    parameter.grad_sample = torch.tensor([[3.0, 4.0], [0.3, 0.0], [float("nan"), 1.0]])  # type: ignore[attr-defined]
    private.clip_and_accumulate()
    short = 1 - group_optimiser.MARGIN
    expected = torch.tensor([0.6 * short + 0.3, 0.8 * short], dtype=torch.float64)
    torch.testing.assert_close(private.clipped_sum(), expected, rtol=1e-6, atol=1e-7)
    private.add_noise()
    torch.testing.assert_close(parameter.grad, (expected / 10).float())


def test_the_noise_has_its_width_and_no_seed_reaches_it() -> None:
    def noise() -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)
        parameter = torch.nn.Parameter(torch.zeros(20_000))
        private = GroupOptimiser(torch.optim.SGD([parameter], lr=1.0), radius=0.5, std=3.0, normaliser=2.0)
        private.add_noise()  # nobody was drawn
        assert parameter.grad is not None
        return parameter.grad

    first, second = noise(), noise()
    assert not torch.equal(first, second)
    assert abs(float(first.std()) - 1.5) < 0.06  # 8 standard errors of the standard deviation


def test_a_step_in_which_nobody_is_drawn_is_noise_alone() -> None:
    private = run(features(12), names(12), noise=1.0)
    before = {name: tensor.clone() for name, tensor in private.model.named_parameters()}
    private.step(0, 1, coins=lambda _, units: np.zeros(units, dtype=bool))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in private.model.named_parameters())


def test_the_normaliser_is_not_the_number_drawn() -> None:
    def moved(coins: np.ndarray) -> Tensor:
        private = run(features(12), names(12), noise=0.0, trained="head", rate=0.5, groups=4)
        start = private.model.head.bias.detach().clone()
        private.step(0, 1, coins=lambda *_: coins)
        return private.model.head.bias.detach() - start

    one, other = np.arange(12) == 2, np.arange(12) == 5
    torch.testing.assert_close(moved(one | other), moved(one) + moved(other), rtol=1e-3, atol=1e-7)


def test_a_policy_becomes_steps() -> None:
    privacy = PrivacySettings(unit="utterance", noise=2.0, clip=3.0, rate=0.2, groups=50, size=8)
    assert GroupSettings.of(privacy) == GroupSettings(3.0, 2.0, 0.2, 50, 8, True, "affine_head")
    assert not GroupSettings.of(PrivacySettings(unit="speaker", noise=2.0)).together
    assert Groups.of(names(3), 2, KEY, together=True).radius(1.0) == 0.5
