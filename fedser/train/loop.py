"""The training loop itself: one epoch after the other, on normalised features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedser.compute import generator
from fedser.models import EmotionClassifier, LinearClassifier
from fedser.models.norms import batch_norms
from fedser.train.settings import TrainSettings

MIN_STEPS = 8  # an epoch; small corpora get smaller batches, so that they are not left half-trained
MIN_BATCH = 8  # below, batch statistics say little


def epochs(
    model: EmotionClassifier,
    x: Tensor,
    y: Tensor,
    settings: TrainSettings,
    seed: int,
    teacher: LinearClassifier | None = None,
) -> Iterator[float]:
    """Train ``model`` in place; yields the mean loss after each of ``settings.epochs`` epochs.

    Whoever stops listening has stopped the training; before the model is used it needs :func:`recalibrate`.
    Layers with dropout draw from torch's global generator, which the caller forks and seeds; all else comes
    from ``seed``.

    Args:
        model: on the device to train on, initialised.
        x: normalised features [N, *shape], on the same device.
        y: class numbers [N] on the CPU, all ≥ 0.
        settings: the recipe.
        seed: of the order, the noise and the mixup.
        teacher: gives ``settings.linear_share`` of the targets, at the very inputs that the model gets.
    """
    draw = generator(seed, "training")
    beta = np.random.default_rng(generator(seed, "mixup").initial_seed())
    optimiser = torch.optim.AdamW(
        _groups(model, settings), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    targets = smoothed_targets(y, len(model.classes), settings).to(x.device)
    size = min(settings.batch_size, max(MIN_BATCH, len(y) // MIN_STEPS), len(y))
    steps = len(y) // size  # the rest of an epoch's order is left out, another one each time
    for epoch in range(settings.epochs):
        order = torch.randperm(len(y), generator=draw)
        model.train()
        total = torch.zeros((), device=x.device)
        for step in range(steps):
            rate = 0.5 * (1 + math.cos(math.pi * (epoch * steps + step) / (settings.epochs * steps)))
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * rate * group["scale"]
            chosen = order[step * size : (step + 1) * size].to(x.device)
            batch, wanted = x[chosen], targets[chosen]
            if settings.mixup:
                share = float(beta.beta(settings.mixup, settings.mixup))
                partner = torch.randperm(size, generator=draw).to(x.device)
                batch, wanted = mix(batch, partner, share), mix(wanted, partner, share)
            if settings.input_noise:
                batch = batch + settings.input_noise * torch.randn(batch.shape, generator=draw).to(x.device)
            if teacher is not None:
                advice = taught(teacher, batch, settings.linear_sharpness)
                wanted = mix_targets(wanted, advice, settings.linear_share)
            loss = soft_cross_entropy(model(batch), wanted)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            total += loss.detach()
        model.eval()
        yield float(total) / steps


def _groups(model: EmotionClassifier, settings: TrainSettings) -> list[dict[str, Any]]:
    """The parameters with their share of the learning rate: small steps for layers that were pretrained."""
    pretrained = {id(parameter) for parameter in model.pretrained_layers()}
    fresh = [parameter for parameter in model.parameters() if id(parameter) not in pretrained]
    groups: list[dict[str, Any]] = [{"params": fresh, "scale": 1.0}]
    if pretrained:
        groups.append({"params": model.pretrained_layers(), "scale": settings.pretrained_scale})
    return groups


def smoothed_targets(y: Tensor, classes: int, settings: TrainSettings) -> Tensor:
    """Targets [N, C]: one-hot, smoothed (Szegedy et al. 2016, sec. 7), and times the weight of the class.

    The weight of class c is N / (C' · N_c) over the C' classes that occur, so that the mean weight is 1.
    """
    hot = functional.one_hot(y, classes).float()
    targets = (1 - settings.label_smoothing) * hot + settings.label_smoothing / classes
    if not settings.class_weights:
        return targets
    counts = hot.sum(0)
    weights = len(y) / (counts.clamp(min=1) * (counts > 0).sum())
    return targets * weights[y].unsqueeze(1)


def mix(values: Tensor, partner: Tensor, share: float) -> Tensor:
    """Mixup (Zhang et al. 2018, eq. 1): ``share`` of each row and the rest of its partner's."""
    return share * values + (1 - share) * values[partner]


def mix_targets(labels: Tensor, advice: Tensor, share: float) -> Tensor:
    """Targets [B, C] of which the teacher gives a share."""
    return (1 - share) * labels + share * advice


def taught(teacher: LinearClassifier, x: Tensor, sharpness: float) -> Tensor:
    """The teacher's class probabilities [B, C]; ``sharpness`` is the inverse of its temperature."""
    with torch.no_grad():
        return functional.softmax(sharpness * teacher(x), dim=1)


def recalibrate(model: EmotionClassifier, x: Tensor, size: int = 1024) -> None:
    """Give batch normalisation the statistics of the quiet model on the data itself; evaluation mode after.

    In training it sees noise, mixtures and dropout, whose variances differ from those at test time (Li et al.
    2019, "Understanding the disharmony between dropout and batch normalization by variance shift").
    """
    model.eval()
    norms = batch_norms(model)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the parts below
        norm.train()
    if norms:
        with torch.no_grad():
            for part in torch.split(x, size):
                if len(part) > 1 or len(x) == 1:
                    model(part)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """−mean_i Σ_c targets[i, c] log softmax(logits)[i, c]."""
    return -(targets * functional.log_softmax(logits, dim=1)).sum(1).mean()


def logits_of(model: EmotionClassifier, x: Tensor, size: int = 512) -> Tensor:
    """Logits [N, C] on the CPU, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in torch.split(x, size)]).cpu()
