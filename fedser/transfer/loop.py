"""The one loop of the references: source training as it always is, and beside it a loss over both corpora."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedser.compute import generator
from fedser.models import EmotionClassifier, fit_logistic
from fedser.train import TrainSettings
from fedser.train import loop as source_loop
from fedser.transfer.reference import Batch, Part, Reference


def epochs(
    model: EmotionClassifier,
    reference: Reference,
    x: Tensor,
    y: Tensor,
    target_x: Tensor,
    settings: TrainSettings,
    seed: int,
) -> Iterator[dict[str, float]]:
    """Train ``model`` and ``reference`` in place; yields the mean of each part of the loss after each epoch.

    The labels' part is :func:`fedser.train.loop.epochs`, draw by draw: a reference whose loss is 0 leaves the very
    same parameters. Before the model is used it needs :func:`fedser.train.loop.recalibrate`.

    Args:
        model: on the device to train on, initialised.
        reference: on the same device.
        x: normalised source features [N, *shape], on the same device.
        y: class numbers [N] on the CPU, all ≥ 0.
        target_x: normalised target features [M, *shape], on the same device.
        settings: the source recipe.
        seed: of everything random, dropout too; the global generators are left as they were.
    """
    optimiser = torch.optim.AdamW(
        _groups(model, reference, settings), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    lessons = _Lessons(model, x, y, settings, seed)
    other = _rows(len(target_x), lessons.size, generator(seed, "transfer", "order"))
    noise = generator(seed, "transfer", "noise")
    numbers, total = y.to(x.device), settings.epochs * lessons.steps
    aside = _Aside(x.device, generator(seed, "transfer", "dropout").initial_seed())
    with _own_dropout(seed, x.device):
        for epoch in range(settings.epochs):
            model.train()
            reference.train()
            sums: dict[str, Tensor] = {}
            for step, (rows, inputs, wanted) in enumerate(lessons.epoch(), epoch * lessons.steps):
                # 1. The labels, exactly as without a target: mixed, noisy, and mostly the linear peer's answers.
                parts = {"labels": source_loop.soft_cross_entropy(model(inputs), wanted)}

                # 2. The reference, on both corpora without mixtures (those have no class), each corpus by itself:
                #    batch normalisation never sees one corpus with the other's statistics.
                with aside:
                    source, target = (
                        _see(model, own + settings.input_noise * torch.randn(own.shape, generator=noise).to(x.device))
                        for own in (x[rows], target_x[next(other).to(x.device)])
                    )
                    parts |= reference.loss(Batch(source, target, numbers[rows], step / total))

                # 3. One annealed step for the network and the reference's own layers.
                rate = 0.5 * (1 + math.cos(math.pi * step / total))
                for group in optimiser.param_groups:
                    group["lr"] = settings.learning_rate * rate * group["scale"]
                optimiser.zero_grad(set_to_none=True)
                torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                sums = {key: sums.get(key, 0.0) + value.detach() for key, value in parts.items()}
            model.eval()
            yield {key: float(value) / lessons.steps for key, value in sums.items()}


def _groups(model: EmotionClassifier, reference: Reference, settings: TrainSettings) -> list[dict[str, Any]]:
    """All parameters with their share of the learning rate, as source training gives it to the network's own."""
    pretrained = model.pretrained_layers()
    known = {id(parameter) for parameter in pretrained}
    fresh = [parameter for parameter in model.parameters() if id(parameter) not in known]
    parts = ((fresh, 1.0), (pretrained, settings.pretrained_scale), (list(reference.parameters()), 1.0))
    return [{"params": parameters, "scale": scale} for parameters, scale in parts if parameters]


class _Lessons:
    """The labelled batches of :func:`fedser.train.loop.epochs`, the same draws in the same order."""

    def __init__(self, model: EmotionClassifier, x: Tensor, y: Tensor, settings: TrainSettings, seed: int) -> None:
        self.x, self.settings = x, settings
        self.draw = generator(seed, "training")
        self.beta = np.random.default_rng(generator(seed, "mixup").initial_seed())
        taught = x.dim() == 2 and settings.linear_share > 0
        self.teacher = fit_logistic(x, y, model.classes).to(x.device) if taught else None
        self.targets = source_loop.smoothed_targets(y, len(model.classes), settings).to(x.device)
        smallest = max(source_loop.MIN_BATCH, len(y) // source_loop.MIN_STEPS)
        self.size = min(settings.batch_size, smallest, len(y))
        self.steps = len(y) // self.size

    def epoch(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows [B], inputs [B, *shape] and soft targets [B, C] of each step."""
        order = torch.randperm(len(self.x), generator=self.draw)
        for step in range(self.steps):
            rows = order[step * self.size : (step + 1) * self.size].to(self.x.device)
            yield rows, *self._disturbed(self.x[rows], self.targets[rows])

    def _disturbed(self, batch: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        settings = self.settings
        if settings.mixup:
            share = float(self.beta.beta(settings.mixup, settings.mixup))
            partner = torch.randperm(self.size, generator=self.draw).to(batch.device)
            batch, wanted = source_loop.mix(batch, partner, share), source_loop.mix(wanted, partner, share)
        if settings.input_noise:
            batch = batch + settings.input_noise * torch.randn(batch.shape, generator=self.draw).to(batch.device)
        if self.teacher is not None:
            advice = source_loop.taught(self.teacher, batch, settings.linear_sharpness)
            wanted = source_loop.mix_targets(wanted, advice, settings.linear_share)
        return batch, wanted


def _see(model: EmotionClassifier, x: Tensor) -> Part:
    encoded = model.encoder(x)
    b = model.bottleneck(encoded)
    return Part(encoded, b, model.classify(b))


def _rows(count: int, size: int, draw: torch.Generator) -> Iterator[Tensor]:
    """Batches of rows without end; a corpus smaller than a batch gives all its rows each time."""
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=draw)
        yield from (order[start : start + size] for start in range(0, count - size + 1, size))


class _Aside:
    """Dropout inside draws from a stream that goes on where it stopped; the one outside does not move."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.cuda = device if device.type == "cuda" else None
        self.inside = torch.Generator(device).manual_seed(seed).get_state()

    def __enter__(self) -> None:
        self.outside = self._swap(self.inside)

    def __exit__(self, *_: object) -> None:
        self.inside = self._swap(self.outside)

    def _swap(self, state: Tensor) -> Tensor:
        if self.cuda is None:
            before = torch.get_rng_state()
            torch.set_rng_state(state)
            return before
        before = torch.cuda.get_rng_state(self.cuda)
        torch.cuda.set_rng_state(state, self.cuda)
        return before


@contextmanager
def _own_dropout(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators as source training does, and put them back afterwards."""
    devices = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(generator(seed, "dropout").initial_seed())
        yield
