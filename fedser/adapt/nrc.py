"""NRC: exploiting the intrinsic neighbourhood structure (Yang et al., NeurIPS 2021, arXiv 2110.04202)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.losses import agreement, diversity
from fedser.models import EmotionClassifier


class NrcSettings(Settings):
    """L = −Σ_{k∈N_K(i)} A_ik S_k·p_i − r Σ_{k∈N_K(i)} Σ_{m∈N_M(k)} S_m·p_i + Σ_c p̄_c log p̄_c.

    A_ik is 1 where i is among the M neighbours of its neighbour k too (reciprocal), else r.

    Attributes:
        neighbours: K nearest neighbours in the bank; the authors take 3 for small data sets, 5 for a large one.
        expanded: M neighbours of each of these; 2 for small data sets, 5 for a large one.
        affinity: r, of neighbours that are not reciprocal and of expanded ones.
        freeze_head: keep the source's classifier head; the authors train it.
    """

    neighbours: int = Field(default=3, ge=1)
    expanded: int = Field(default=2, ge=1)
    affinity: float = Field(default=0.1, ge=0, le=1)
    freeze_head: bool = False


class Nrc(Gradient):
    """Predictions follow those of reciprocal neighbours, and a little those of the neighbours' neighbours.

    i itself, where it is its neighbours' neighbour, stays among the expanded ones, and those that several
    neighbours share count several times. The attraction is K + r·K·M at most, the diversity of six emotions
    log 6: with K = M = 5 classes vanish at sites of some hundred utterances, so the defaults are the authors' for
    small data sets. The epochs and the rate are AaD's.
    """

    name = "nrc"
    settings_type = NrcSettings
    settings: NrcSettings
    schedule: ClassVar[Schedule] = Schedule(epochs=30, learning_rate=1e-2)

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """All parameters, or all but the head when it is frozen."""
        return super().trainable(model) if self.settings.freeze_head else model.adaptable()

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Neighbours, expanded neighbours and diversity."""
        own, bank = self.settings, batch.bank
        near = bank.neighbours(batch.index, own.neighbours)
        expanded = bank.neighbours(near.flatten(), own.expanded).view(*near.shape, -1)
        weights = affinities(batch.index, expanded, own.affinity).to(batch.p.dtype)
        return {
            "neighbours": -agreement(batch.p, bank.scores[near], weights),
            "expanded": -own.affinity * agreement(batch.p, bank.scores[expanded.flatten(1)]),
            "diversity": diversity(batch.p),
        }


def affinities(index: Tensor, expanded: Tensor, weak: float) -> Tensor:
    """A [B, K]: 1 where an utterance is among the neighbours of its own neighbour, else ``weak``.

    Args:
        index: the batch's rows in the bank, int64 [B].
        expanded: rows of the neighbours of each row's neighbours, int64 [B, K, M].
        weak: of neighbours that are not reciprocal.
    """
    reciprocal = (expanded == index.view(-1, 1, 1)).any(dim=2)
    return torch.where(reciprocal, 1.0, weak)
