"""The figures of one cell, from its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata
from torch import Tensor

from fedser.evaluate import metrics


def scores(probabilities: Tensor, labels: Tensor) -> dict[str, Any]:
    """UAR, WAR, macro-F1 and ECE of the utterances whose emotion the source knows, and the AUROC of the others.

    Args:
        probabilities: [N, C].
        labels: class numbers, int64 [N]; −1 where the source does not know the emotion.

    Returns:
        Columns of the results; empty strings for what cannot be computed.
    """
    known = labels >= 0
    p, true = probabilities[known], labels[known]
    guess = p.argmax(1)
    table = {
        "uar": metrics.uar(true, guess),
        "war": metrics.war(true, guess),
        "macro_f1": metrics.macro_f1(true, guess),
        "ece": metrics.ece(p, true),
    }
    unsure = 1 - probabilities.max(dim=1).values
    table["unknown_auroc"] = auroc(unsure.tolist(), (~known).tolist())
    return {name: "" if np.isnan(value) else round(value, 6) for name, value in table.items()}


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: how often a positive's score exceeds a negative's, ties counting half.

    The rank statistic of Mann and Whitney (1947); NaN without both kinds.
    """
    wanted = np.asarray(positive, dtype=bool)
    count, rest = int(wanted.sum()), int((~wanted).sum())
    if not count or not rest:
        return float("nan")
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[wanted].sum() - count * (count + 1) / 2) / (count * rest))


def by_speaker(
    probabilities: Tensor, labels: Tensor, speakers: Sequence[str | None]
) -> dict[str, list[tuple[int, int, int]]]:
    """Counts of (true, answered) pairs of each speaker, as (true, answered, count); the bootstrap needs no more.

    An utterance without a speaker stands for itself, under ``#`` and its number.
    """
    counts: dict[str, dict[tuple[int, int], int]] = {}
    guess = probabilities.argmax(1).tolist()
    for row, (true, answered) in enumerate(zip(labels.tolist(), guess, strict=True)):
        if true >= 0:
            own = counts.setdefault(speakers[row] or f"#{row}", {})
            own[true, answered] = own.get((true, answered), 0) + 1
    return {
        name: [(true, answered, count) for (true, answered), count in sorted(own.items())]
        for name, own in sorted(counts.items())
    }
