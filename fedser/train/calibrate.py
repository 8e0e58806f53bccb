"""Temperature scaling (Guo et al. 2017, sec. 4.2): one number that makes confidences honest."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

LOWEST, HIGHEST = 0.05, 20.0


def temperature(logits: Tensor, y: Tensor) -> float:
    """The temperature T > 0 that minimises the mean negative log-likelihood of softmax(logits / T).

    The likelihood is convex in 1/T, so golden-section search finds the minimum; in log T for even steps.

    Args:
        logits: [N, C] of utterances that the model was not trained on.
        y: class numbers [N].
    """
    low, high = math.log(LOWEST), math.log(HIGHEST)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    loss_left, loss_right = _loss(logits, y, left), _loss(logits, y, right)
    for _ in range(40):
        if loss_left < loss_right:
            high, right, loss_right = right, left, loss_left
            left = high - ratio * (high - low)
            loss_left = _loss(logits, y, left)
        else:
            low, left, loss_left = left, right, loss_right
            right = low + ratio * (high - low)
            loss_right = _loss(logits, y, right)
    return math.exp((low + high) / 2)


def _loss(logits: Tensor, y: Tensor, log_temperature: float) -> float:
    return float(functional.cross_entropy(logits.double() / math.exp(log_temperature), y, reduction="mean"))


def uar(predicted: Tensor, y: Tensor) -> float:
    """Unweighted average recall over the classes that occur in ``y``, in [0, 1]."""
    recalls = [(predicted[y == number] == number).double().mean() for number in sorted(set(y.tolist()))]
    return float(torch.stack(recalls).mean())
