"""A new network learns from answers: the distillation of DINE (Liang et al., CVPR 2022, arXiv 2104.01539)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedser.adapt.optimiser import batches, optimiser, seeded_dropout, set_rate
from fedser.adapt.probabilities import mask_logits, probabilities
from fedser.adapt.schedule import Schedule
from fedser.compute import generator
from fedser.config import Settings
from fedser.errors import ConfigError
from fedser.losses import divergence, diversity, mean_entropy
from fedser.models import EmotionClassifier, initialise
from fedser.models.norms import batch_norms

JOINS = 0.3  # share of the schedule after which a second teacher takes over
SECOND = 2 / 3  # its weight, beside the student's own answers at that moment


class DistilSettings(Settings):
    """L = KL(teacher ‖ p) + mean H(p_i) − H(p̄) + weight · KL(mixture of the p ‖ p of the mixture).

    Steps and rate are our choice, long enough that from a teacher that stays the same the student learns nine in
    ten answers: it starts from nothing, where the authors start from a network that knows images.

    Attributes:
        average: share of the old teacher in the new one.
        updates: parts of the schedule; after each but the last one the student's predictions join the teacher.
        mixup: α of Beta(α, α), which draws the shares of a mixture.
        mixup_weight: 0 switches the mixture term off.
        steps: of the whole schedule, for sites of any size.
        learning_rate: of the first step; the rest of the schedule is the one that all methods share.
    """

    average: float = Field(default=0.6, ge=0, le=1)
    updates: int = Field(default=10, ge=1)
    mixup: float = Field(default=0.3, gt=0)
    mixup_weight: float = Field(default=1.0, ge=0)
    steps: int = Field(default=1000, ge=1)
    learning_rate: float = Field(default=0.05, gt=0)


def distil(
    like: EmotionClassifier,
    teacher: Tensor,
    x: Tensor,
    class_mask: Tensor | None,
    seed: int,
    settings: DistilSettings,
    second: Tensor | None = None,
) -> EmotionClassifier:
    """Train a network from nothing on answers.

    Args:
        like: gives the architecture and the device; none of its weights is used.
        teacher: the answers, class probabilities [N, C]; of each the largest is kept and the rest spread.
        x: normalised features [N, \\*shape].
        class_mask: bool [C], true for the classes that can occur; None means all.
        seed: of the student's first weights, shuffling, noise, dropout and mixtures.
        settings: of the distillation.
        second: another teacher's answers [N, C]: from three tenths of the schedule on they take the first one's
            place, two thirds beside one of the student's own.

    Returns:
        The student in evaluation mode, all of its parameters trained.

    Raises:
        ConfigError: the weights became infinite.
    """
    own = settings
    student = EmotionClassifier(like.settings, like.shape, like.classes)
    initialise(student, generator("dine", "student", seed))
    student.to(x.device)
    now = top_and_spread(teacher, class_mask)
    taken = 0

    def taught(step: int) -> Tensor:
        """The teacher of a step: from part to part of the schedule it takes on what the student has learnt."""
        nonlocal now, taken
        part = step * own.updates // own.steps
        if part != taken:
            taken, said = part, probabilities(student, x, class_mask=class_mask)
            if second is not None and part == round(JOINS * own.updates):
                now = SECOND * second + (1 - SECOND) * said
            else:
                now = own.average * now + (1 - own.average) * said
        return now

    follow(student, taught, x, class_mask, seed, own)
    return student


def follow(
    student: EmotionClassifier,
    teacher: Callable[[int], Tensor],
    x: Tensor,
    class_mask: Tensor | None,
    seed: int,
    settings: DistilSettings,
    *,
    frozen: Collection[str] = (),
    start: int = 0,
    steps: int | None = None,
) -> float:
    """Let a network learn from answers, in place, and leave it in evaluation mode.

    Args:
        student: the network; it gives the device.
        teacher: of each step, class probabilities [N, C].
        x: normalised features [N, \\*shape].
        class_mask: bool [C], true for the classes that can occur; None means all.
        seed: of shuffling, noise, dropout and mixtures.
        settings: of the distillation; its ``steps`` are the whole schedule.
        frozen: names of parameters that stay as they are.
        start: the first step of this call within the schedule.
        steps: of this call; up to the schedule's end when None.

    Returns:
        The mean loss of the steps; 0 without any.

    Raises:
        ConfigError: the weights became infinite.
        UsageError: no parameter is left to train.
    """
    own, schedule = settings, Schedule(steps=settings.steps, learning_rate=settings.learning_rate)
    steps = own.steps - start if steps is None else steps
    sgd = optimiser(student, set(student.adaptable()) - set(frozen), schedule)
    path = (seed, start) if start else (seed,)
    noise = generator("dine", "noise", *path)
    shares = np.random.default_rng(generator("dine", "mixup", *path).initial_seed())
    total = torch.zeros((), device=x.device)
    with seeded_dropout(x.device, "dine", "dropout", *path):
        student.train()
        for step, rows in enumerate(batches(len(x), schedule, seed, start, steps), start):
            # 1. The student follows the teacher, and is sure of each utterance but not of one class.
            answers, index = teacher(step), rows.to(x.device)
            batch = x[index] + schedule.input_noise * torch.randn(x[index].shape, generator=noise).to(x.device)
            logits = mask_logits(student(batch), class_mask)
            p = logits.softmax(dim=1)
            loss = divergence(answers[index], logits) + mean_entropy(p) + diversity(p)

            # 2. Between two utterances its answers lie between theirs.
            if own.mixup_weight:
                share = float(shares.beta(own.mixup, own.mixup))
                partner = torch.randperm(len(index), generator=noise).to(x.device)
                with still_statistics(student):
                    mixed = mask_logits(student(mix(batch, partner, share)), class_mask)
                loss = loss + own.mixup_weight * divergence(mix(p, partner, share), mixed)
            set_rate(sgd, schedule.rate(step / own.steps))
            sgd.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            sgd.step()
            total += loss.detach()  # read once, at the end: no step waits for the device
    if not all(bool(tensor.isfinite().all()) for tensor in student.state_dict().values()):
        raise ConfigError("The adaptation diverged: weights became infinite.", "Lower the learning rate.")
    student.requires_grad_(True).eval()
    return float(total) / max(1, steps)


def top_and_spread(p: Tensor, class_mask: Tensor | None = None) -> Tensor:
    """Keep each row's largest probability and spread the rest evenly over the other classes (the paper's eq. 3).

    Args:
        p: class probabilities [N, C], zero for masked classes.
        class_mask: bool [C], true for the classes that can occur; the others stay at zero. None means all.

    Returns:
        Probabilities [N, C].
    """
    allowed = torch.ones(p.shape[1], dtype=torch.bool, device=p.device) if class_mask is None else class_mask
    best, place = p.max(dim=1, keepdim=True)
    rest = (1 - best) / (allowed.sum() - 1).clamp(min=1)
    return (rest * allowed).scatter(1, place, best)


def mix(values: Tensor, partner: Tensor, share: float) -> Tensor:
    """Mixup (Zhang et al. 2018, eq. 1): ``share`` of each row and the rest of its partner's."""
    return share * values + (1 - share) * values[partner]


@contextmanager
def still_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the batch's statistics without taking them into its running ones.

    Mixtures have smaller variances than utterances.
    """
    norms = batch_norms(model)
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
