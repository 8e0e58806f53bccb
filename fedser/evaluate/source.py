"""What a provider publishes, as studies use it: trained in the run, without a bundle in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedser.models import EmotionClassifier, LinearClassifier, ModelSettings
from fedser.train import Trained, TrainSettings, fit_linear, train_model


@dataclass(frozen=True)
class SourceModel:
    """The classifier, its linear peer (for vector features) and the temperature of the classifier's logits.

    ``trained`` is how the classifier came about, where it was trained in this run.
    """

    model: EmotionClassifier
    linear: LinearClassifier | None
    temperature: float
    trained: Trained | None = None


def train_source(
    x: Tensor,
    y: Tensor,
    speakers: Sequence[str | None],
    classes: Sequence[str],
    model: ModelSettings,
    settings: TrainSettings,
    *,
    seed: int,
    device: torch.device,
) -> SourceModel:
    """Train classifier and linear peer on normalised features; arguments as in :func:`fedser.train.train_model`."""
    trained = train_model(x, y, speakers, classes, model, settings, seed, device)
    linear = fit_linear(x, y, classes) if x.dim() == 2 else None
    return SourceModel(trained.model.to(device), linear, trained.temperature, trained)
