"""G-SFDA: generalised source-free domain adaptation (Yang et al., ICCV 2021, arXiv 2108.01614)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.losses import diversity, log_agreement
from fedser.models import EmotionClassifier


class GsfdaSettings(Settings):
    """L = −Σ_{k∈N_i} log(p_i·S_k) + Σ_c p̄_c log p̄_c.

    Attributes:
        neighbours: nearest neighbours in the bank; the authors take 3 for small data sets, 10 for a large one.
        freeze_head: keep the source's classifier head.
    """

    neighbours: int = Field(default=3, ge=1)
    freeze_head: bool = True


class Gsfda(Gradient):
    """Local structure clustering: an utterance is classified as its neighbours are.

    The method's other half, attention over domains, keeps the source's accuracy while the target is learnt; a
    source-free site has no use for that, and it is left out. With it the authors train only those channels of
    the head that the source does not need, so the head is frozen here by default. Each neighbour adds up to
    infinity while the diversity of six emotions is at most log 6: with the rates of the other methods, or with
    ten neighbours, some classes vanish. So neighbours and rate are those of the authors for small data sets.
    """

    name = "gsfda"
    settings_type = GsfdaSettings
    settings: GsfdaSettings
    schedule: ClassVar[Schedule] = Schedule(learning_rate=1e-3)

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """All but the head, or all when the head is not frozen."""
        return super().trainable(model) if self.settings.freeze_head else model.adaptable()

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Clustering and diversity."""
        near = batch.bank.neighbours(batch.index, self.settings.neighbours)
        return {
            "clustering": -log_agreement(batch.logits, batch.bank.scores[near]),
            "diversity": diversity(batch.p),
        }
