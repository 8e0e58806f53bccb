"""First weights, drawn from one generator: the same seed gives the same model on every machine."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import init

from fedser.models.layer_mix import LayerMix
from fedser.models.linear import LinearClassifier, WeightNormalisedLinear
from fedser.models.low_rank import LowRank
from fedser.models.pretrained import PretrainedEncoder


def initialise(model: nn.Module, generator: torch.Generator) -> None:
    """Draw every random parameter of a model from a CPU generator, in place; norms and biases are reset.

    Layers before a ReLU: He et al. 2015, eq. 10 (fan in); the head: Glorot and Bengio 2010, eq. 16, with the
    magnitude set to the length of its direction. The trained layers of a pretrained encoder get their pretrained
    weights.
    """
    pretrained = [module for module in model.modules() if isinstance(module, PretrainedEncoder)]
    kept = {id(module) for encoder in pretrained for module in encoder.trained.modules()}
    for encoder in pretrained:
        encoder.restore()
    for module in model.modules():
        if id(module) in kept:
            continue
        if isinstance(module, nn.Linear | nn.Conv2d):
            drawn = torch.empty(module.weight.shape)
            init.kaiming_normal_(drawn, nonlinearity="relu", generator=generator)
            _set(module.weight, drawn)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, WeightNormalisedLinear):
            drawn = torch.empty(module.direction.shape)
            init.xavier_normal_(drawn, generator=generator)
            _set(module.direction, drawn)
            _set(module.magnitude, drawn.norm(dim=1, keepdim=True))
            init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
        elif isinstance(module, LowRank):
            module.reset(generator)
        elif isinstance(module, LayerMix):
            init.zeros_(module.weights)
        elif isinstance(module, LinearClassifier):
            init.zeros_(module.weight)
            init.zeros_(module.bias)


def _set(parameter: torch.Tensor, values: torch.Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
