"""Gradients of one layer's parameters, group by group, from what went into it and the gradient of what came out.

The model itself runs once, over the utterances of all groups as one batch, and only its trained layers are looked at
group by group (the idea of Goodfellow 2015, "Efficient per-example gradient computations", arXiv 1510.01799).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from fedser.models.linear import WeightNormalisedLinear


def gradients_of_layer(layer: nn.Module, names: Collection[str], x: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
    """The gradient of each group.

    Args:
        layer: one that couples no two rows; batch normalisation in evaluation mode.
        names: of the layer's own parameters.
        x: what went in, [G, S, \\*in].
        outward: the loss' gradient with respect to what came out, [G, S, \\*out].

    Returns:
        By name, [G, \\*parameter].
    """
    if isinstance(layer, nn.Linear) and x.dim() == 3:
        found = _linear(x, outward)
    elif isinstance(layer, WeightNormalisedLinear):
        found = _weight_normalised(layer, x, outward)
    elif isinstance(layer, nn.BatchNorm1d) and x.dim() == 3 and not layer.training and layer.running_mean is not None:
        found = _published_norm(layer, layer.running_mean, x, outward)
    else:
        return _any(layer, names, x, outward)
    return {name: found[name] for name in names}


def _linear(x: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
    return {"weight": outward.mT @ x, "bias": outward.sum(dim=1)}


def _weight_normalised(layer: WeightNormalisedLinear, x: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
    """Salimans and Kingma 2016, eq. 3, of the effective weight's gradient."""
    plain = _linear(x, outward)
    length = torch.linalg.vector_norm(layer.direction, dim=1, keepdim=True).clamp_min(1e-12)
    unit = layer.direction / length
    magnitude = (plain["weight"] * unit).sum(dim=2, keepdim=True)
    direction = layer.magnitude / length * (plain["weight"] - magnitude * unit)
    return {"direction": direction, "magnitude": magnitude, "bias": plain["bias"]}


def _published_norm(layer: nn.BatchNorm1d, mean: Tensor, x: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
    """Scale and shift of a normalisation by statistics that no utterance of the batch is part of."""
    scale = (layer.get_buffer("running_var") + layer.eps).rsqrt()
    normalised = torch.addcmul(-mean * scale, x, scale)
    return {"weight": normalised.mul_(outward).sum(dim=1), "bias": outward.sum(dim=1)}


def _any(layer: nn.Module, names: Collection[str], x: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
    """Any other layer: it is run once more under ``vmap``, for the gradient of its parameters alone."""
    own = {name: layer.get_parameter(name).detach() for name in names}

    def each(inward: Tensor, outward: Tensor) -> Mapping[str, Tensor]:
        back = vjp(lambda parameters: functional_call(layer, parameters, (inward,)), own)[1]
        found: Mapping[str, Tensor] = back(outward)[0]
        return found

    gradients: Mapping[str, Tensor] = vmap(each, randomness="error")(x, outward)
    return gradients
