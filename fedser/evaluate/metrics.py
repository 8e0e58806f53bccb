"""Scores of a classifier: fractions of 1, percent only where something is printed.

UAR (unweighted average recall) is the field's primary metric: the mean over the classes that occur of each
class's recall, so a rare emotion counts as much as a frequent one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

Labels = Sequence[int] | npt.NDArray[np.int64] | torch.Tensor
Counts = npt.NDArray[np.int64]


def confusion(labels: Labels, predictions: Labels, classes: int) -> Counts:
    """Count [true, predicted] pairs.

    Args:
        labels: true classes [N], each in 0 … classes − 1.
        predictions: predicted classes [N]; −1 (answered "unknown") is counted in no column.
        classes: number of classes C.

    Returns:
        int64 [C, C]. A row's sum falls short of the class's utterances by those answered "unknown".
    """
    true, predicted = _pairs(labels, predictions)
    known = predicted >= 0
    cells = np.bincount(true[known] * classes + predicted[known], minlength=classes * classes)
    return cells.astype(np.int64).reshape(classes, classes)


def recall(labels: Labels, predictions: Labels, classes: int) -> npt.NDArray[np.float64]:
    """Recall of each class [C]; NaN where the class has no utterance."""
    true, predicted = _pairs(labels, predictions)
    present = np.bincount(true, minlength=classes)
    hits = np.bincount(true[true == predicted], minlength=classes)
    result = np.full(classes, np.nan)
    result[present > 0] = hits[present > 0] / present[present > 0]
    return result


def uar(labels: Labels, predictions: Labels) -> float:
    """Unweighted average recall: the mean recall over the classes in ``labels``; NaN without labels."""
    true, predicted = _pairs(labels, predictions)
    return _mean([float((predicted[true == label] == label).mean()) for label in np.unique(true)])


def war(labels: Labels, predictions: Labels) -> float:
    """Weighted average recall, which is the accuracy; NaN without labels."""
    true, predicted = _pairs(labels, predictions)
    return float((true == predicted).mean()) if len(true) else float("nan")


def macro_f1(labels: Labels, predictions: Labels) -> float:
    """Mean F1 over the classes that occur in ``labels``; NaN without labels."""
    true, predicted = _pairs(labels, predictions)
    scores = []
    for label in np.unique(true):
        hits = int(((true == label) & (predicted == label)).sum())
        scores.append(2 * hits / int((true == label).sum() + (predicted == label).sum()))
    return _mean(scores)


def reliability(probabilities: torch.Tensor, labels: Labels, bins: int = 15) -> list[tuple[float, float, int]]:
    """Mean confidence, accuracy and count of each non-empty bin of equal width.

    Args:
        probabilities: [N, C]; the confidence is the largest of a row.
        labels: true classes [N].
    """
    confidence, predicted = (part.numpy() for part in probabilities.detach().double().max(dim=1))
    hit = predicted == np.asarray(labels)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    rows = [(place == number) for number in range(bins)]
    return [(float(confidence[row].mean()), float(hit[row].mean()), int(row.sum())) for row in rows if row.any()]


def ece(probabilities: torch.Tensor, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error over equally wide bins (Guo et al. 2017, equation 5); NaN without labels."""
    rows = reliability(probabilities, labels, bins)
    total = sum(count for _, _, count in rows)
    if not total:
        return float("nan")
    return sum(abs(confidence - accuracy) * count for confidence, accuracy, count in rows) / total


def _pairs(labels: Labels, predictions: Labels) -> tuple[Counts, Counts]:
    true, predicted = (np.asarray(part, dtype=np.int64) for part in (labels, predictions))
    if true.shape != predicted.shape or true.ndim != 1:
        raise ValueError(f"{true.shape} labels and {predicted.shape} predictions do not pair up")
    if len(true) and true.min() < 0:
        raise ValueError("a negative label: leave utterances without a label out first")
    return true, predicted


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
