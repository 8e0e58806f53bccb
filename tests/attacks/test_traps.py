"""Crafted layers: what is read out is the input itself, by hand; within the default radius; and only with the units."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fedser.attacks.traps import GAIN, Moments, Trap, few_units, layer_inputs, recovered, whole_layer
from fedser.compute import generator
from fedser.federation.admission import NORM_FLOOR


def test_one_step_through_batch_normalisation_gives_the_input_back(small: Any) -> None:
    """With the true moments, every unit that fires for one utterance returns exactly that one."""
    model = small.source.model
    x = torch.randn(40, 24, generator=generator("test traps"))
    centred = x - x.mean(dim=0)
    true = Moments(x.mean(dim=0), centred.T @ centred / len(x))
    trap = whole_layer(model, 0, len(x), Moments.of(x), 3)
    linear, norm = nn.Linear(24, 64), nn.BatchNorm1d(64)
    weight, bias, gain, shift = trap.names
    crafted = trap.craft(dict(model.named_parameters()))
    linear.load_state_dict({"weight": crafted[weight], "bias": crafted[bias]})
    norm.load_state_dict({**norm.state_dict(), "weight": crafted[gain], "bias": crafted[shift]})
    fired = norm(linear(x))
    loss = (torch.relu(fired) * torch.randn(40, 64, generator=generator("test loss"))).sum()
    loss.backward()
    alone = (fired > 0).sum(dim=0) == 1
    change = {weight: linear.weight.grad, gain: norm.weight.grad, shift: norm.bias.grad}
    moved = change[shift].abs() > 1e-12
    told = trap.read(change, true)
    wanted = x[(fired > 0).float().argmax(dim=0)][moved]
    single = alone[moved]
    assert int(single.sum()) >= 10
    assert torch.allclose(told[single], wanted[single], atol=0.02)


def test_the_crafted_layer_lies_within_the_default_radius(small: Any) -> None:
    model = small.source.model
    for layer in (0, 1):
        moments = Moments.of(layer_inputs(model, layer, torch.randn(60, 24, generator=generator("test radius"))))
        crafted = whole_layer(model, layer, 60, moments, 0).craft(dict(model.named_parameters()))
        for name, signed in model.named_parameters():
            reach = max(float(signed.detach().norm()), NORM_FLOOR * signed.numel() ** 0.5)
            assert float((crafted[name] - signed.detach()).norm()) <= reach, name


def test_a_few_units_leave_the_others_as_they_are(small: Any) -> None:
    model = small.source.model
    moments = Moments.of(torch.randn(60, 64, generator=generator("test few")))
    trap = few_units(model, 1, 60, moments, 0, 2)
    crafted = trap.craft(dict(model.named_parameters()))
    changed = (crafted["encoder.layers.5.weight"] != model.get_parameter("encoder.layers.5.weight")).nonzero()[:, 0]
    assert sorted(changed.tolist()) == sorted(trap.units)
    assert torch.all(crafted["encoder.layers.5.weight"][list(trap.units)] == GAIN)


def test_layers_that_do_not_travel_give_nothing(small: Any) -> None:
    trap = Trap(0, [0], torch.ones(1, 24), torch.ones(1), 2.0)
    assert len(trap.read({"encoder.layers.1.bias": torch.ones(64)}, Moments.of(torch.randn(9, 24)))) == 0


def test_what_counts_as_recovered() -> None:
    inputs = torch.eye(3)
    candidates = torch.tensor([[5.0, 0.1, 0.0], [4.0, 0.0, 0.1], [1.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
    assert recovered(candidates, inputs, 0.95) == 1  # twice the same input, a mixture, and the opposite of one
    assert recovered(candidates, inputs, 0.7) == 2
    assert recovered(torch.zeros(0, 3), inputs, 0.5) == 0
