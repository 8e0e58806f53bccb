"""AaD: attracting and dispersing (Yang et al., NeurIPS 2022, arXiv 2205.04183)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.losses import agreement, overlap


class AadSettings(Settings):
    """L = −Σ_{k∈N_i} S_k·p_i + α_t Σ_{j≠i} p_i·p_j, with α_t = (1 + 10 t/T)^−decay.

    Attributes:
        neighbours: K nearest neighbours in the bank; 3 to 5 in the paper.
        decay: how fast dispersion fades; 0 to 5 in the paper.
    """

    neighbours: int = Field(default=5, ge=1)
    decay: float = Field(default=1.0, ge=0)


class Aad(Gradient):
    """Predictions of neighbours agree, those of all others in the batch disperse."""

    name = "aad"
    settings_type = AadSettings
    settings: AadSettings
    schedule: ClassVar[Schedule] = Schedule(epochs=30, learning_rate=1e-2)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Attraction and dispersion."""
        near = batch.bank.neighbours(batch.index, self.settings.neighbours)
        fade = (1.0 + 10.0 * batch.progress) ** -self.settings.decay
        return {
            "attraction": -agreement(batch.p, batch.bank.scores[near]),
            "dispersion": fade * overlap(batch.p),
        }
