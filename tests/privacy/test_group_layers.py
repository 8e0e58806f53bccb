"""Gradients of a layer's parameters, group by group: those that autograd finds for each group alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fedser.compute import generator
from fedser.models.linear import WeightNormalisedLinear
from fedser.privacy.group_layers import gradients_of_layer

GROUPS, SIZE = 3, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator("layers", seed))


def filled(layer: nn.Module) -> nn.Module:
    """The layer with parameters and published statistics of its own, in evaluation mode."""
    for number, tensor in enumerate(layer.state_dict().values()):
        if tensor.is_floating_point():
            tensor.copy_(drawn(*tensor.shape, seed=number).abs() + 0.5)
    return layer.eval()


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(4, 3), (4,)),
        (nn.Linear(4, 3), (2, 4)),
        (nn.Linear(4, 3, bias=False), (4,)),
        (WeightNormalisedLinear(4, 3), (4,)),
        (nn.BatchNorm1d(4), (4,)),
        (nn.BatchNorm1d(4), (4, 6)),
        (nn.BatchNorm2d(4), (4, 3, 6)),
        (nn.LayerNorm(4), (4,)),
        (nn.GroupNorm(2, 4), (4, 3, 6)),
        (nn.Conv2d(4, 2, 3), (4, 5, 6)),
    ],
    ids=repr,
)
def test_each_group_has_the_gradient_that_it_has_alone(layer: nn.Module, shape: tuple[int, ...]) -> None:
    filled(layer)
    x = drawn(GROUPS, SIZE, *shape, seed=1)
    out = layer(x.flatten(0, 1)).unflatten(0, (GROUPS, SIZE))
    outward = drawn(*out.shape, seed=2)
    names = [name for name, _ in layer.named_parameters()]
    found = gradients_of_layer(layer, names, x, outward)
    assert set(found) == set(names)
    for group in range(GROUPS):
        slow = torch.autograd.grad((layer(x[group]) * outward[group]).sum(), list(layer.parameters()))
        for name, gradient in zip(names, slow, strict=True):
            torch.testing.assert_close(found[name][group], gradient, rtol=1e-4, atol=1e-5)


def test_only_what_is_named_is_given() -> None:
    layer = filled(nn.Linear(4, 3))
    assert set(gradients_of_layer(layer, ["bias"], drawn(2, 5, 4), drawn(2, 5, 3))) == {"bias"}
