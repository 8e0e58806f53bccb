"""A pretrained encoder of which a part is trained: its last layers, or low-rank changes of their attention.

The rest is frozen: it belongs to no model's parameters and to no bundle, but is found by its digest on the machine
that computes (:mod:`fedser.pretrained.weights`), and all models of a process share it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedser.errors import ConfigError
from fedser.models.layer_mix import LayerMix
from fedser.models.low_rank import AttentionAdapter
from fedser.models.mlp import MlpEncoder
from fedser.models.norms import vector_norm
from fedser.models.settings import ModelSettings
from fedser.pretrained import Pretrained, trunk, weights
from fedser.pretrained.architectures import architecture

SAMPLES = 24 * 16_000  # of waveforms in one pass without gradients: the convolutions need some 500 MB for them


class Units(nn.Module):
    """GELU, as a layer that can be watched: which of its units fire tells about crafted weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to [B, T, units]."""
        return functional.gelu(x)


class FeedForward(nn.Module):
    """Torchaudio's feed-forward part of a layer, its tensors under the same names."""

    def __init__(self, theirs: nn.Module) -> None:
        super().__init__()
        parts: Any = theirs
        self.intermediate_dense: nn.Module = parts.intermediate_dense
        self.units = Units()
        self.output_dense: nn.Module = parts.output_dense

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, D] to [B, T, D]."""
        found: Tensor = self.output_dense(self.units(self.intermediate_dense(x)))
        return found


class PretrainedEncoder(nn.Module):
    """Waveforms [B, 1, samples] to [B, hidden]: all layers, pooled over time and mixed, then normalised, then an MLP.

    Attributes:
        base: which frozen encoder it stands on.
        first: number of the first layer that is trained or adapted.
        trained: own copies of the last layers, for ``last``.
        adapters: low-rank changes of the last layers, for ``lora``.

    Raises:
        ConfigError: no digest of weights, or more layers than there are.
        DependencyError: the weights are not on this machine.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.base = _base(settings)
        row = architecture(self.base.family, self.base.size)
        if settings.layers > row.layers:
            raise ConfigError(
                f"{self.base.family} {self.base.size} has {row.layers} layers, not {settings.layers}.",
                "Set model.layers to fewer, or to 0 for all of them.",
            )
        count = settings.layers or row.layers
        self.first = row.layers - count
        self.trained = nn.ModuleList()
        self.adapters = nn.ModuleList()
        if settings.trained == "last":
            with torch.device("meta"):
                self.trained.extend(_watched(layer) for layer in trunk.layers_of(row.build())[self.first :])
        else:
            self.adapters.extend(AttentionAdapter(row.width, settings.rank, settings.alpha) for _ in range(count))
        self.mix = LayerMix(row.levels)
        self.norm = vector_norm(settings.norm, row.statistics * row.width)
        self.tail = MlpEncoder(row.statistics * row.width, settings)
        self.outputs = self.tail.outputs
        self._receptive = row.receptive
        if not self.mix.weights.is_meta:  # a bundle's tensors are checked without the weights
            weights.require(self.base)
            self.trained.to_empty(device="cpu")
            self.restore()

    def restore(self) -> None:
        """Give the trained layers the pretrained weights."""
        if not len(self.trained):
            return
        layers = trunk.layers_of(weights.load(self.base))[self.first :]
        for own, theirs in zip(self.trained, layers, strict=True):
            own.load_state_dict(theirs.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, 1, samples]``."""
        x = x.squeeze(1)
        if torch.is_grad_enabled():
            levels = self._levels(x)
        else:
            levels = torch.cat([self._levels(part) for part in torch.split(x, _rows(x))])
        encoded: Tensor = self.tail(self.norm(self.mix(levels)))
        return encoded

    def _levels(self, x: Tensor) -> Tensor:
        """Pooled outputs [B, 2, L + 1, D] of [B, samples]; gradients reach the trained layers and no further."""
        model = weights.load(self.base, x.device)
        hidden, found = self._frozen(model, x)
        for place, layer in enumerate(trunk.layers_of(model)[self.first :]):
            if len(self.trained):
                hidden = trunk.step(self.trained[place], hidden)
            else:
                adapter: Any = self.adapters[place]
                hidden = trunk.step(layer, hidden, adapter.merged(layer))
            found.append(trunk.pooled(hidden))
        return torch.stack(found, dim=2)

    @torch.no_grad()
    def _frozen(self, model: nn.Module, x: Tensor) -> tuple[trunk.Hidden, list[Tensor]]:
        """What the first trained layer gets, and the pooled levels so far, each [B, 2, D]."""
        parts, levels = [], []
        for rows in torch.split(x, _rows(x)):
            hidden = trunk.frames(model, list(rows), self._receptive)
            found = [trunk.pooled(hidden)]
            for layer in trunk.layers_of(model)[: self.first]:
                hidden = trunk.step(layer, hidden)
                found.append(trunk.pooled(hidden))
            parts.append(hidden)
            levels.append(found)
        bias = parts[0].bias  # waveforms of one length have one bias
        joined = trunk.Hidden(torch.cat([part.x for part in parts]), None, None if bias is None else bias[:1])
        return joined, [torch.cat(level) for level in zip(*levels, strict=True)]


def _watched(layer: nn.Module) -> nn.Module:
    """The same layer with units that can be watched."""
    layer.feed_forward = FeedForward(layer.get_submodule("feed_forward"))
    return layer


def _rows(x: Tensor) -> int:
    return max(1, SAMPLES // x.shape[1])


def _base(settings: ModelSettings) -> Pretrained:
    weights.path_of(settings.weights)
    return Pretrained.model_validate({"family": settings.encoder, "size": settings.size, "weights": settings.weights})
