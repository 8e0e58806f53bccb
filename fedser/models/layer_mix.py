"""Learnt weights over the layers of a pretrained encoder, and the encoder for layers that were pooled beforehand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedser.models.mlp import MlpEncoder
from fedser.models.settings import ModelSettings


class LayerMix(nn.Module):
    """Σ_l softmax(w)_l x_l over the layers (Yang et al. 2021, SUPERB, sec. 3.2), equal ones at first."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(levels))

    def forward(self, x: Tensor) -> Tensor:
        """Mix the levels of [B, statistics, levels, D]; [B, statistics · D]."""
        return torch.einsum("bsld,l->bsd", x, self.weights.softmax(dim=0)).flatten(1)


class PooledEncoder(nn.Module):
    """The mix of the pooled layers of a frozen encoder, then an MLP: [B, statistics, levels, D] to [B, hidden]."""

    def __init__(self, shape: tuple[int, int, int], settings: ModelSettings) -> None:
        super().__init__()
        statistics, levels, width = shape
        self.mix = LayerMix(levels)
        self.tail = MlpEncoder(statistics * width, settings)
        self.outputs = self.tail.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, statistics, levels, D]``."""
        encoded: Tensor = self.tail(self.mix(x))
        return encoded
