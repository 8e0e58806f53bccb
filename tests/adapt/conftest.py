"""A made-up problem with a shift between source and target, and a source model for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional

from fedser import compute
from fedser.adapt import Bank, Batch
from fedser.models import EmotionClassifier, ModelSettings, initialise

CLASSES = ("anger", "fear", "sadness")
SIZE = 12


@dataclass(frozen=True)
class Shifted:
    """A source model, and target utterances x [N, 12] with the labels y [N] that only the tests see."""

    model: EmotionClassifier
    x: torch.Tensor
    y: torch.Tensor

    def accuracy(self, model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((model(self.x).argmax(dim=1) == self.y).float().mean())


def clusters(count: int, turn: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One tight cluster a class; the shift turns each class's centre towards the next one's."""
    y = torch.arange(count) % len(CLASSES)
    centres = 3 * torch.eye(SIZE)[: len(CLASSES)]
    x = centres[y] * (1 - turn) + centres[(y + 1) % len(CLASSES)] * turn
    return x + 0.5 * torch.randn(count, SIZE, generator=compute.generator("shifted", seed)), y


@pytest.fixture(scope="session")
def shifted() -> Shifted:
    """Source and target are the same three clusters, those of the target turned by two fifths of the way."""
    model = EmotionClassifier(ModelSettings(hidden=32, bottleneck=16, dropout=0.1), (SIZE,), CLASSES)
    initialise(model, compute.generator("shifted source"))
    x, y = clusters(120, 0.0, seed=0)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-2)
    draw = compute.generator("shifted noise")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.train()
        for _ in range(60):
            noisy = x + 0.5 * torch.randn(x.shape, generator=draw)
            loss = functional.cross_entropy(model(noisy), y, label_smoothing=0.1)
            adam.zero_grad()
            loss.backward()
            adam.step()
    model.eval()
    return Shifted(model, *clusters(150, 0.4, seed=1))


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Batch]:
    """Makes one step of a made-up site in double precision: 5 dimensions, the bank already holds the batch."""

    def make(count: int, rows: int, classes: int, seed: int, targets: torch.Tensor | None = None) -> Batch:
        rng = compute.generator("batch", seed)
        bank = Bank(
            torch.randn(rows, 5, generator=rng, dtype=torch.float64),
            torch.randn(rows, classes, generator=rng, dtype=torch.float64).mul(2).softmax(dim=1),
        )
        index = torch.randperm(rows, generator=rng)[:count]
        b = torch.randn(count, 5, generator=rng, dtype=torch.float64)
        logits = torch.randn(count, classes, generator=rng, dtype=torch.float64)
        f, p = b / b.norm(dim=1, keepdim=True), logits.softmax(dim=1)
        bank.update(index, f, p)
        return Batch(index, b, f, p, logits, bank, targets, 0.0)

    return make
