"""Speaker folds: no speaker is trained on and validated on at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.compute import generator

MIN_SPEAKERS = 8  # below, held-out speakers cost more than they tell


def speaker_folds(speakers: Sequence[str | None], folds: int, seed: int) -> list[Tensor]:
    """Held-out sets, each a boolean mask [N], by whole speakers; unknown speakers stay together.

    With ``folds`` above 1 each utterance is held out exactly once (fewer folds where there are fewer
    speakers); with 1 there is one set, about a fifth of the speakers. No set where there is one speaker.
    """
    names = sorted({_key(speaker) for speaker in speakers})
    if len(names) < 2:
        return []
    order = torch.randperm(len(names), generator=generator(seed, "speaker folds")).tolist()
    parts = min(folds if folds > 1 else 5, len(names))
    fold_of = {names[speaker]: place % parts for place, speaker in enumerate(order)}
    fold = torch.tensor([fold_of[_key(speaker)] for speaker in speakers])
    return [fold == number for number in range(parts if folds > 1 else 1)]


def usable_for_early_stop(speakers: Sequence[str | None], y: Tensor, held_out: Sequence[Tensor]) -> str | None:
    """Why held-out speakers cannot choose the number of epochs; None when they can."""
    count = len({_key(speaker) for speaker in speakers})
    if count < MIN_SPEAKERS or any(speaker is None for speaker in speakers):
        return f"{count} known speakers, fewer than {MIN_SPEAKERS}" if None not in speakers else "unknown speakers"
    classes = set(y.tolist())
    pooled = torch.stack(list(held_out)).any(0)
    if set(y[pooled].tolist()) < classes:
        return "an emotion has no recording of a held-out speaker"
    if any(set(y[~mask].tolist()) < classes for mask in held_out):
        return "an emotion is spoken by held-out speakers only"
    return None


def _key(speaker: str | None) -> str:
    return "" if speaker is None else f"speaker {speaker}"
