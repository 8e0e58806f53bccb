"""What training data must have, said before the work begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.errors import TooLittleDataError

MIN_PER_CLASS = 2


def check(x: Tensor, y: Tensor, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The labelled part of a training set.

    Args:
        x: features [N, *shape].
        y: class numbers [N]; -1 marks utterances without a label among ``classes``.
        classes: emotion names.

    Raises:
        TooLittleDataError: fewer than two classes with utterances, or a class with fewer than two of them.
    """
    kept = y >= 0
    x, y = x[kept], y[kept]
    counts = torch.bincount(y, minlength=len(classes))
    if int((counts > 0).sum()) < 2:
        found = ", ".join(name for name, count in zip(classes, counts, strict=True) if count) or "none"
        raise TooLittleDataError(
            f"Training needs at least two emotions with recordings; found: {found}.",
            "Add recordings of other emotions, or check the labels with 'fedser corpus scan'.",
        )
    few = [name for name, count in zip(classes, counts.tolist(), strict=True) if 0 < count < MIN_PER_CLASS]
    if few:
        raise TooLittleDataError(
            f"Too few recordings of {', '.join(few)}: each emotion needs {MIN_PER_CLASS} at least.",
            "Add recordings, or leave these emotions out with --classes.",
        )
    return x, y
