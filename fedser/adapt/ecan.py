"""ECAN: emotion-aware contrastive adaptation (Zhao et al., ICASSP 2024, arXiv 2401.12925)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.losses import diversity, neighbour_contrastive, supervised_contrastive
from fedser.models import EmotionClassifier


class EcanSettings(Settings):
    """L = L_div + λ·L_ncl + β·L_scl.

    The paper's temperature, number of neighbours, weights, denominator, learning rate and epochs are not known
    to us. The defaults, and the schedule of :class:`Ecan`, are our choice: one set for all corpora, by the mean
    UAR over the pairs of EmoDB, EMOVO and RAVDESS, where temperatures from 0.1 to 0.3, 3 to 15 neighbours, and
    either denominator lie within one point of each other.

    Attributes:
        temperature: τ of both contrastive losses.
        neighbours: M nearest neighbours in the bank.
        neighbour_weight: λ; 0 switches the neighbour term off.
        supervised_weight: β; 0 switches the pseudo-label term off.
        diversity_weight: 1 in the paper; 0 switches the diversity term off.
        denominator: whether the neighbour term's denominator runs over the bank or over the batch.
        freeze_head: keep the source's classifier head, which diversity alone would move.
    """

    temperature: float = Field(default=0.2, gt=0)
    neighbours: int = Field(default=5, ge=1)
    neighbour_weight: float = Field(default=1.0, ge=0)
    supervised_weight: float = Field(default=1.0, ge=0)
    diversity_weight: float = Field(default=1.0, ge=0)
    denominator: Literal["bank", "batch"] = "bank"
    freeze_head: bool = True


class Ecan(Gradient):
    """Neighbours attract each other, pseudo-labels from the neighbours' scores form classes."""

    name = "ecan"
    settings_type = EcanSettings
    settings: EcanSettings
    schedule: ClassVar[Schedule] = Schedule(epochs=30, learning_rate=1e-2)

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """All but the head, or all when the head is not frozen."""
        return super().trainable(model) if self.settings.freeze_head else model.adaptable()

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The three terms, steps 1 to 5 of the method; terms of weight 0 are left out."""
        own, bank, parts = self.settings, batch.bank, {}
        near = bank.neighbours(batch.index, own.neighbours)
        if own.neighbour_weight:
            term = neighbour_contrastive(batch.f, near, bank.features, batch.index, own.temperature, own.denominator)
            parts["neighbour"] = own.neighbour_weight * term
        if own.supervised_weight:
            labels = bank.scores[near].mean(dim=1).argmax(dim=1)
            parts["supervised"] = own.supervised_weight * supervised_contrastive(batch.f, labels, own.temperature)
        if own.diversity_weight:
            parts["diversity"] = own.diversity_weight * diversity(batch.p)
        return parts
