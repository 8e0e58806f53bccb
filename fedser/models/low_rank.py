"""Low-rank changes of attention: LoRA (Hu et al. 2022, arXiv 2106.09685)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import init


class LowRank(nn.Module):
    """A change of a weight [D, D]: (alpha / rank) · B A with A [rank, D] and B [D, rank] (eq. 3); zero at first."""

    def __init__(self, width: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.zeros(rank, width))
        self.up = nn.Parameter(torch.zeros(width, rank))
        self.scale = alpha / rank

    def change(self) -> Tensor:
        """What is added to the weight, [D, D]."""
        return self.scale * (self.up @ self.down)

    def reset(self, generator: torch.Generator) -> None:
        """Draw A (He et al. 2015) and set B to zero, so that nothing is changed yet."""
        drawn = torch.empty(self.down.shape)
        init.kaiming_normal_(drawn, nonlinearity="linear", generator=generator)
        with torch.no_grad():
            self.down.copy_(drawn)
            self.up.zero_()


class AttentionAdapter(nn.Module):
    """Low-rank changes of one layer's query and value projections, the pair that pays best (sec. 7.1)."""

    def __init__(self, width: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.query = LowRank(width, rank, alpha)
        self.value = LowRank(width, rank, alpha)

    def merged(self, layer: nn.Module) -> dict[str, Tensor]:
        """The layer's weights with the changes added, under the layer's own names.

        Args:
            layer: a transformer layer of torchaudio; it stays as it is.
        """
        attention: Any = layer.attention
        query, value = self.query.change(), self.value.change()
        if hasattr(attention, "q_proj"):
            return {
                "attention.q_proj.weight": attention.q_proj.weight + query,
                "attention.v_proj.weight": attention.v_proj.weight + value,
            }
        stacked: Tensor = attention.attention.in_proj_weight  # WavLM: query, key and value, one below the other
        return {
            "attention.attention.in_proj_weight": stacked + torch.cat([query, torch.zeros_like(query), value]),
        }
