"""A lower bound of ε from what a mechanism released with and without a canary."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

Floats = npt.NDArray[np.float64]


def epsilon_lower_bound(scores_in: Floats, scores_out: Floats, delta: float, confidence: float) -> float:
    """The ε that a mechanism has at least, given scores of its releases; 0 where they show nothing.

    A mechanism of (ε, δ) keeps TPR ≤ e^ε · FPR + δ for every test (Kairouz, Oh and Viswanath 2015), and the same of
    TNR and FNR. The threshold and the side are chosen on the even scores; on the odd ones the two rates get
    Clopper–Pearson bounds (1934) that hold together with the confidence asked for (Jagielski, Ullman and Oprea 2020).

    Args:
        scores_in, scores_out: of releases with and without the canary, in random order; larger means "with".
        delta: of the claim.
        confidence: of the bound.
    """
    chosen, side = _threshold(scores_in[::2], scores_out[::2], delta)
    with_it, without = scores_in[1::2], scores_out[1::2]
    error = (1.0 - confidence) / 2.0
    if side:
        hits, falls = int((with_it > chosen).sum()), int((without > chosen).sum())
        hit, fall = _low(hits, len(with_it), error), _high(falls, len(without), error)
    else:
        hits, falls = int((without <= chosen).sum()), int((with_it <= chosen).sum())
        hit, fall = _low(hits, len(without), error), _high(falls, len(with_it), error)
    return max(math.log((hit - delta) / fall), 0.0) if hit > delta else 0.0


def _threshold(scores_in: Floats, scores_out: Floats, delta: float) -> tuple[float, bool]:
    """The threshold that promises most, and whether scores above it say "with"; counts are pulled in by one."""
    best, found = -math.inf, (0.0, True)
    for value in np.unique(np.concatenate([scores_in, scores_out])):
        above = _promise((scores_in > value).sum(), len(scores_in), (scores_out > value).sum(), len(scores_out), delta)
        below = _promise(
            (scores_out <= value).sum(), len(scores_out), (scores_in <= value).sum(), len(scores_in), delta
        )
        for side, promise in ((True, above), (False, below)):
            if promise > best:
                best, found = promise, (float(value), side)
    return found


def _promise(hits: int, of: int, falls: int, others: int, delta: float) -> float:
    hit = max(hits - 1, 0) / of - delta
    return math.log(hit / ((falls + 3) / others)) if hit > 0 else -math.inf


def _low(count: int, of: int, error: float) -> float:
    return float(beta.ppf(error, count, of - count + 1)) if count else 0.0


def _high(count: int, of: int, error: float) -> float:
    return float(beta.ppf(1.0 - error, count + 1, of - count)) if count < of else 1.0
