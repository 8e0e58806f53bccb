"""Learnt weights over the layers of a pretrained encoder, and the encoder for layers that were pooled beforehand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedser.models.mlp import MlpEncoder
from fedser.models.settings import ModelSettings
from fedser.pretrained.architectures import Architecture


class LayerMix(nn.Module):
    """Σ_l softmax(w)_l x_l over the layers (Yang et al. 2021, SUPERB, sec. 3.2), equal ones at first."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(levels))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the levels of [B, statistics, levels, D]; [B, statistics · D]."""
        return torch.einsum("bsld,l->bsd", x, self.weights.softmax(dim=0)).flatten(1)


class PooledEncoder(nn.Module):
    """The mix of the pooled layers of a frozen encoder, then an MLP: [B, statistics · levels · D] to [B, hidden]."""

    def __init__(self, settings: ModelSettings, row: Architecture) -> None:
        super().__init__()
        self._shape = (row.statistics, row.levels, row.width)
        self.mix = LayerMix(row.levels)
        self.tail = MlpEncoder(row.statistics * row.width, settings)
        self.outputs = self.tail.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, statistics · levels · D]``."""
        encoded: Tensor = self.tail(self.mix(x.reshape(-1, *self._shape)))
        return encoded
