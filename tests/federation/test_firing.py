"""Units that single out a few utterances: counted right, found in crafted weights, absent from honest ones."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedser.compute import generator
from fedser.federation import firing, wire
from fedser.federation.layout import layout_of, pack
from fedser.federation.local import settle
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Refusal, Update
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, ModelSettings, initialise


def slow_count(fired: torch.Tensor, few: int) -> tuple[int, int]:
    """By sets."""
    units = [frozenset(n for n in range(len(fired)) if fired[n, u]) for u in range(fired.shape[1])]
    alone = sum(0 < len(unit) < few for unit in units)
    others = [*units, frozenset()]
    pairs = sum(any(0 < len(unit ^ other) < few for other in others) for unit in units)
    return alone, pairs


@given(st.integers(1, 12), st.integers(1, 12), st.integers(2, 5), st.integers(0, 10**6), st.floats(0.05, 0.95))
@settings(max_examples=150, deadline=None)
def test_the_counts_by_sets(n: int, units: int, few: int, seed: int, density: float) -> None:
    fired = torch.rand(n, units, generator=torch.Generator().manual_seed(seed)) < density
    layer = firing._count(fired, few)
    assert (layer.alone, layer.pairs) == slow_count(fired, few)


def test_blocks_of_a_wide_layer_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    fired = torch.rand(20, 37, generator=torch.Generator().manual_seed(1)) < 0.3
    whole = firing._count(fired, 4)
    monkeypatch.setattr(firing, "_UNITS", 5)
    assert firing._count(fired, 4) == whole


@pytest.mark.parametrize("encoder", ["mlp", "vgg11", "resnet"])
def test_every_relu_of_every_encoder_is_heard(encoder: str) -> None:
    shape = (6,) if encoder == "mlp" else (32, 40)
    model = EmotionClassifier(
        ModelSettings(encoder=encoder, hidden=8, depth=2, bottleneck=4, width=4), shape, ("a", "b")
    )
    initialise(model, generator("test relu"))
    x = torch.randn(5, *shape, generator=generator("test relu data"))
    seen = firing.patterns(model.eval(), x)
    expected = {"mlp": 2, "vgg11": sum(isinstance(m, nn.ReLU) for m in model.modules()), "resnet": 9}[encoder]
    assert len(seen) == expected
    assert all(fired.shape[0] == 5 and fired.ndim == 2 for fired in seen)


def test_the_mlps_patterns_are_its_activations(lab: Any) -> None:
    data = lab.data()
    first = data.model.encoder.layers[:3](data.x) > 0
    assert torch.equal(firing.patterns(data.model, data.x)[0], first)


def wide(utterances: int = 60) -> LocalData:
    model = EmotionClassifier(ModelSettings(hidden=64, depth=3, bottleneck=16), (12,), ("anger", "neutral", "sadness"))
    initialise(model, generator("test wide"))
    return LocalData(model.eval(), torch.randn(utterances, 12, generator=generator("test wide data")), speakers=3)


def trapped(data: LocalData, layer: int, kind: str) -> dict[str, torch.Tensor]:
    """One hidden linear layer that measures one direction of its input, with thresholds on it by the norm's biases.

    Within the radius: equal rows along a direction to which the signed rows lean, and the norm's gain made small so
    that small biases are wide thresholds.
    """
    linear, norm = f"encoder.layers.{4 * layer}", f"encoder.layers.{4 * layer + 1}"
    tensors = {name: p.detach().clone() for name, p in data.model.named_parameters()}
    weight = tensors[f"{linear}.weight"]
    direction = torch.randn(weight.shape[1], generator=generator("test trap"))
    direction /= direction.norm()
    lean = weight @ direction
    if (lean * lean.abs()).sum() < 0:
        direction, lean = -direction, -lean
    share = (lean * lean.abs()).sum() / lean.square().sum()
    tensors[f"{linear}.weight"] = share * lean.abs()[:, None] * direction[None]
    tensors[f"{norm}.weight"] = torch.full_like(tensors[f"{norm}.weight"], 0.03)
    units = len(weight)
    places = torch.linspace(-2.0, 2.0, units) if kind == "bins" else torch.linspace(1.5, 3.0, units)
    tensors[f"{norm}.bias"] = -0.03 * places
    return tensors


def ask(lab: Any, data: LocalData, tensors: dict[str, torch.Tensor], policy: Policy | None = None) -> Any:
    site = lab.site(1, policy, data)
    names = set(data.model.adaptable()) - set(data.model.first_layer())
    plan = replace(lab.plan({"site-1": site}), layout=layout_of(data.model, names))
    flat = pack(tensors, plan.layout)
    order = lab.provider({}, plan).order(1, "site-1", "train", flat)
    message, _ = wire.decode_reply(site.answer(wire.encode(order, flat, lab.order_key)), lab.key(1).public_hex)
    return message


@pytest.mark.parametrize("kind", ["bins", "rare"])
@pytest.mark.parametrize("layer", [1, 2])
def test_a_deeper_layer_that_singles_out_utterances_stops_the_round(lab: Any, layer: int, kind: str) -> None:
    data = wide()
    message = ask(lab, data, trapped(data, layer, kind))
    assert isinstance(message, Refusal)
    assert message.code == Code.TRAP  # and not RADIUS: the crafted weights lie inside it


@pytest.mark.parametrize("utterances", [8, 16, 60, 200])
def test_the_bundles_own_model_and_slightly_other_ones_pass(lab: Any, utterances: int) -> None:
    data = wide(utterances)
    own = {name: p.detach().clone() for name, p in data.model.named_parameters()}
    assert isinstance(ask(lab, data, own), Update)
    for seed in range(3):
        noise = generator("test noise", seed)
        moved = {n: p + 0.1 * p.std().nan_to_num() * torch.randn(p.shape, generator=noise) for n, p in own.items()}
        assert isinstance(ask(lab, data, moved), Update)


def test_a_bundle_with_rare_units_of_its_own_is_no_trap(lab: Any) -> None:
    data = wide()
    data.model.load_state_dict(trapped(data, 1, "rare"), strict=False)
    own = {name: p.detach().clone() for name, p in data.model.named_parameters()}
    settled = copy.deepcopy(data.model)
    settle(settled, data.x)
    assert firing.layers(settled, data.x, 0.02)[1].alone >= 10
    assert isinstance(ask(lab, data, own), Update)


def test_the_margins_are_the_sites_own(lab: Any) -> None:
    data = wide(32)
    assert isinstance(ask(lab, data, trapped(data, 1, "bins")), Refusal)
    loose = Policy(trap_alone=1.0, trap_pairs=2.0)
    assert isinstance(ask(lab, data, trapped(data, 1, "bins"), loose), Update)


def test_bins_do_read_inputs_out_of_an_update(lab: Any) -> None:
    """What the check is for: neighbouring bins' gradients differ by one utterance's input of the layer."""
    data = wide()
    model = data.model
    model.load_state_dict(trapped(data, 1, "bins"), strict=False)
    settle(model, data.x)
    linear, norm, relu = model.encoder.layers[4:7]
    inside = model.encoder.layers[:4](data.x)
    hidden = relu(norm(linear(inside)))
    (rows,) = torch.autograd.grad(hidden.sum(), linear.weight)
    rows = rows * norm.running_var.add(norm.eps).sqrt()[:, None]
    wanted = nn.functional.normalize(inside.detach(), dim=1)
    singled = [unit for unit in range(63) if int(((hidden > 0)[:, unit] ^ (hidden > 0)[:, unit + 1]).sum()) == 1]
    read = [nn.functional.normalize(rows[unit] - rows[unit + 1], dim=0) for unit in singled]
    assert sum(float((wanted @ row).abs().max()) > 0.999 for row in read) >= 10
