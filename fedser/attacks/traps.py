"""Crafted layers: units that fire for hardly anybody, and how inputs are read out of what they wrote.

After Fowl et al. 2022, "Robbing the Fed" (arXiv 2110.13057), for layers that batch normalisation follows. The gradient
of a unit's weights is a sum of the inputs for which it fires; a unit that fires for one utterance writes that one's
input into the update. Here each unit measures a direction of its own, and fires beyond a threshold that one of N normal
values passes.

Batch normalisation adds to the gradient of an utterance k of standardised value z what all others share:
g · γ/σ · (x_k − x̄ − z · Cov(x) u / σ), by its backward pass. The update tells g (of the norm's bias) and g·z (of its
gain); mean and covariance the attacker takes from speech of his own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedser.compute import generator
from fedser.models import EmotionClassifier

GAIN = 0.03
EPSILON = 1e-5  # of batch normalisation


@dataclass(frozen=True)
class Moments:
    """Mean [D] and covariance [D, D] of a layer's inputs, as the attacker knows them."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, inputs: Tensor) -> Moments:
        """From inputs [N, D], with a twentieth of the mean variance added."""
        covariance = torch.cov(inputs.T)
        ridge = 0.05 * covariance.diagonal().mean() * torch.eye(len(covariance))
        return cls(inputs.mean(dim=0), covariance + ridge)


@dataclass(frozen=True)
class Trap:
    """A crafted layer, within the radius that a default policy grants around the signed weights.

    Rows may be as short as they like, since batch normalisation follows: each is the part of the signed row along its
    direction. A small gain makes small biases wide thresholds.

    Attributes:
        layer: number of the hidden layer, from 0.
        units: which of its units are crafted.
        directions: of their rows [U, D], of length 1.
        lengths: of their rows [U].
        threshold: standard deviations beyond which they fire.
    """

    layer: int
    units: Sequence[int]
    directions: Tensor
    lengths: Tensor
    threshold: float

    @classmethod
    def set(
        cls, model: EmotionClassifier, layer: int, units: Sequence[int], directions: Tensor, utterances: int
    ) -> Trap:
        """Over a model's layer, with thresholds that one of so many normal values passes."""
        signed = model.get_parameter(f"encoder.layers.{4 * layer}.weight").detach()[list(units)]
        lean = (signed * directions).sum(dim=1)
        threshold = float(torch.special.ndtri(torch.tensor(1.0 - 1.0 / utterances)))
        return cls(layer, units, directions * torch.sign(lean)[:, None], lean.abs().clamp_min(0.01), threshold)

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Weight and bias of the linear layer, gain and bias of its norm."""
        linear, norm = f"encoder.layers.{4 * self.layer}", f"encoder.layers.{4 * self.layer + 1}"
        return f"{linear}.weight", f"{linear}.bias", f"{norm}.weight", f"{norm}.bias"

    def craft(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The model's parameters with the crafted units in them."""
        crafted = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        weight, bias, gain, shift = self.names
        rows = list(self.units)
        crafted[weight][rows] = self.directions * self.lengths[:, None]
        crafted[bias][rows] = 0.0
        crafted[gain][rows] = GAIN
        crafted[shift][rows] = -self.threshold * GAIN
        return crafted

    def read(self, change: Mapping[str, Tensor], moments: Moments) -> Tensor:
        """Candidates for inputs of the layer [V, D], of the units that moved; V may be 0.

        Args:
            change: what training changed, by name; without the layer's weight there is nothing to read.
            moments: of the layer's inputs.
        """
        weight, _, gain, shift = self.names
        if not {weight, gain, shift} <= change.keys():
            return torch.zeros(0, self.directions.shape[1])
        rows = list(self.units)
        moved = change[shift][rows].abs() > 1e-12
        g = change[shift][rows][moved]
        z = (change[gain][rows][moved] / g).clamp(-20, 20)
        u = (self.directions * self.lengths[:, None])[moved]
        along = u @ moments.covariance
        sigma = ((along * u).sum(dim=1) + EPSILON).sqrt()
        rest = change[weight][rows][moved] / g[:, None] * (sigma / GAIN)[:, None]
        candidates = rest + moments.mean + (z / sigma)[:, None] * along
        return candidates[candidates.isfinite().all(dim=1)]


def whole_layer(model: EmotionClassifier, layer: int, utterances: int, moments: Moments, seed: int) -> Trap:
    """All units of a layer, each with a direction of its own: half of them drawn evenly, half by the inputs' spread."""
    width = model.get_parameter(f"encoder.layers.{4 * layer}.weight").shape[0]
    return Trap.set(model, layer, range(width), _directions(width, moments, seed), utterances)


def few_units(model: EmotionClassifier, layer: int, utterances: int, moments: Moments, seed: int, count: int) -> Trap:
    """So few units that a look at the whole layer takes them for chance."""
    width = model.get_parameter(f"encoder.layers.{4 * layer}.weight").shape[0]
    units = torch.randperm(width, generator=generator("attack", "units", seed))[:count].tolist()
    return Trap.set(model, layer, units, _directions(count, moments, seed), utterances)


def without_dropout(model: EmotionClassifier) -> EmotionClassifier:
    """The same weights in a bundle without dropout: who signs bundles chooses that too."""
    plain = copy.deepcopy(model)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return plain


def recovered(candidates: Tensor, inputs: Tensor, cosine: float) -> int:
    """How many of the inputs [N, D] a candidate [V, D] comes as near as this cosine."""
    if not len(candidates) or not len(inputs):
        return 0
    near = functional.normalize(inputs, dim=1) @ functional.normalize(candidates, dim=1).T
    return int((near.max(dim=1).values >= cosine).sum())


def layer_inputs(model: EmotionClassifier, layer: int, x: Tensor) -> Tensor:
    """What a hidden layer of the MLP gets for features [N, D], without dropout."""
    with torch.no_grad():
        inside = nn.Sequential(*_hidden(model)[: 4 * layer])(x) if layer else x
    return inside


def _hidden(model: EmotionClassifier) -> list[nn.Module]:
    """Linear layer, norm, ReLU and dropout of each hidden layer of the MLP."""
    return list(model.encoder.get_submodule("layers").children())


def _directions(count: int, moments: Moments, seed: int) -> Tensor:
    drawn = torch.randn(count, len(moments.mean), generator=generator("attack", "directions", seed))
    factor = torch.linalg.cholesky(moments.covariance)
    spread = torch.linalg.solve_triangular(factor.T, drawn[::2].T, upper=True).T
    drawn[::2] = spread
    return functional.normalize(drawn, dim=1)
