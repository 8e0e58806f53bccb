"""A labelled source, and a target that is the same emotions with every centre turned towards the next."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from fedser import compute
from fedser.models import ModelSettings
from fedser.train import Trained, TrainSettings, train_model

CLASSES = ("anger", "fear", "sadness")
SIZE = 12
MODEL = ModelSettings(hidden=16, bottleneck=8, dropout=0.2)
RECIPE = TrainSettings(epochs=20, folds=0, input_noise=0.3)


@dataclass(frozen=True)
class Problem:
    """Source x [96, 12] with labels and speakers, target x [120, 12] without, and a source-only model."""

    x: torch.Tensor
    y: torch.Tensor
    speakers: tuple[str, ...]
    target_x: torch.Tensor
    trained: Trained


def clusters(count: int, turn: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One tight cluster a class; the target's channels 6 to 11 also rise and fall together, as noise in a room does."""
    y = torch.arange(count) % len(CLASSES)
    centres = 3 * torch.eye(SIZE)[: len(CLASSES)]
    x = centres[y] * (1 - turn) + centres[(y + 1) % len(CLASSES)] * turn
    x = x + 0.25 * torch.randn(count, SIZE, generator=compute.generator("transfer tests", seed))
    if turn:
        x[:, 6:] += 1.5 * torch.randn(count, 1, generator=compute.generator("transfer tests", "room", seed))
    return x - x.mean(dim=0), y


@pytest.fixture(scope="session")
def problem() -> Problem:
    x, y = clusters(96, 0.0, seed=0)
    speakers = tuple(f"s{i % 4}" for i in range(len(x)))
    trained = train_model(x, y, speakers, CLASSES, MODEL, RECIPE, 3, torch.device("cpu"))
    return Problem(x, y, speakers, clusters(120, 0.4, seed=1)[0], trained)
