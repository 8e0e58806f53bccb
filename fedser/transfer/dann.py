"""DANN: domain-adversarial training (Ganin et al., JMLR 2016, arXiv 1505.07818)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedser.config import Settings
from fedser.models import EmotionClassifier
from fedser.transfer.reference import Batch, Reference


class DannSettings(Settings):
    """Binary cross-entropy of a discriminator that tells the corpora apart; the network gets −λ_p times its gradient.

    Attributes:
        weight: of the domain loss.
        hidden: units of each of the discriminator's two hidden layers.
        steepness: γ of the schedule λ_p = 2 / (1 + exp(−γ p)) − 1 over the progress p; 10 in the paper.
    """

    weight: float = Field(default=1.0, ge=0)
    hidden: int = Field(default=64, ge=1)
    steepness: float = Field(default=10.0, gt=0)


class Dann(Reference):
    """Bottleneck features from which a discriminator cannot tell the corpora apart."""

    name = "dann"
    settings_type = DannSettings
    settings: DannSettings

    def __init__(self, settings: DannSettings, model: EmotionClassifier) -> None:
        super().__init__(settings, model)
        self.discriminator = nn.Sequential(
            nn.Linear(model.settings.bottleneck, settings.hidden),
            nn.ReLU(),
            nn.Linear(settings.hidden, settings.hidden),
            nn.ReLU(),
            nn.Linear(settings.hidden, 1),
        )

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The discriminator's loss, behind the gradient reversal."""
        strength = reversal_strength(batch.progress, self.settings.steepness)
        b = reverse_gradient(torch.cat([batch.source.b, batch.target.b]), strength)
        return {"domain": self.settings.weight * domain_loss(self.discriminator(b), len(batch.source.b))}


def domain_loss(logits: Tensor, source: int) -> Tensor:
    """Binary cross-entropy of domain logits [B, 1], mean over the corpora; the first ``source`` rows are class 0."""
    corpus = torch.ones_like(logits)
    corpus[:source] = 0.0
    each = functional.binary_cross_entropy_with_logits(logits, corpus, reduction="none")
    return (each[:source].mean() + each[source:].mean()) / 2


def reversal_strength(progress: float, steepness: float = 10.0) -> float:
    """λ_p = 2 / (1 + exp(−γ p)) − 1, from 0 to almost 1 (Ganin et al. 2016, training procedure)."""
    return 2.0 / (1.0 + math.exp(-steepness * progress)) - 1.0


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """The identity whose gradient is multiplied by −``strength`` (Ganin et al. 2016, the gradient reversal layer)."""
    reversed_x: Tensor = _Reversal.apply(x, strength)  # type: ignore[no-untyped-call]
    return reversed_x


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:  # noqa: ANN401  # torch's own type
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return -ctx.strength * gradients[0], None
