"""Lower bounds on ε from an attack on canaries: what a mechanism is seen to leak, against what it claims.

A canary is a made-up unit that is put in or left out by a fair coin; the attacker scores each from what was released. A
bound above the claim shows the claim false; one below it shows nothing more than that this attack did not.

*Independent runs* (:func:`epsilon_lower_bound`): (ε, δ)-DP holds the attacker's rates to TPR ≤ e^ε·FPR + δ, and the
same with the roles changed, TNR ≤ e^ε·FNR + δ. So ε ≥ log((TPR − δ)/FPR), with Clopper-Pearson bounds of both rates
(Jagielski, Ullman and Oprea 2020, "Auditing differentially private machine learning", arXiv 2006.07709; Nasr et al.
2021). The threshold is chosen on one half of the scores and judged on the other.

*One run* (:func:`one_run_lower_bound`): many canaries in the same run are not independent, but of r guesses at m coins
no more are right than Binomial(r, e^ε/(1 + e^ε)) would be, up to a term in δ (Steinke, Nasr and Jagielski 2023,
"Privacy auditing with one (1) training run", arXiv 2305.08846, theorem 5.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, binom

_SHARES = (1.0, 0.5, 0.2, 0.1, 0.05)  # of canaries that are guessed at, fixed before anything is seen
_CAUTIOUS = 0.999  # of a threshold's choice: at 95 % it would often follow a few scores of the first half
_MOST = 60.0
_STEPS = 40


def epsilon_lower_bound(scores_in: ArrayLike, scores_out: ArrayLike, delta: float, confidence: float = 0.95) -> float:
    """What ε is at least, with ``confidence``, given scores of independent releases with and without a canary.

    Args:
        scores_in: [N], of releases that the canary was in; higher means that the attacker finds it likelier.
        scores_out: [M], of releases without it.
        delta: of the claim.
        confidence: chance that the bound is no higher than the true ε.

    Raises:
        ValueError: fewer than two scores on a side, or a score that is not a number.
    """
    inside, outside = _scores(scores_in), _scores(scores_out)
    threshold, above = _threshold(inside[::2], outside[::2], delta)
    held_in, held_out = inside[1::2], outside[1::2]
    if above:  # at or above it: in
        hits, false = int((held_in >= threshold).sum()), int((held_out >= threshold).sum())
        return float(_bounds(hits, len(held_in), false, len(held_out), delta, confidence))
    hits, false = int((held_out < threshold).sum()), int((held_in < threshold).sum())
    return float(_bounds(hits, len(held_out), false, len(held_in), delta, confidence))


def _scores(given: ArrayLike) -> NDArray[np.float64]:
    scores = np.asarray(given, dtype=np.float64).reshape(-1)
    if len(scores) < 2 or np.isnan(scores).any():
        raise ValueError("an audit needs at least two scores with, and two without the canary, and each a number")
    return scores


def _threshold(inside: NDArray[np.float64], outside: NDArray[np.float64], delta: float) -> tuple[float, bool]:
    """The threshold and the side of it with the best bound on these scores."""
    thresholds = np.unique(np.quantile(np.concatenate([inside, outside]), np.linspace(0, 1, 201)))
    hits = np.array([(inside >= threshold).sum() for threshold in thresholds])
    false = np.array([(outside >= threshold).sum() for threshold in thresholds])
    n, m = len(inside), len(outside)
    put_in = _bounds(hits, n, false, m, delta, _CAUTIOUS)
    left_out = _bounds(m - false, m, n - hits, n, delta, _CAUTIOUS)
    above = bool(put_in.max() >= left_out.max())
    return float(thresholds[int((put_in if above else left_out).argmax())]), above


def _bounds(hits: ArrayLike, n: int, false: ArrayLike, m: int, delta: float, confidence: float) -> NDArray[np.float64]:
    """log((TPR − δ)/FPR), the rates at the ends of Clopper-Pearson intervals that hold together with ``confidence``."""
    tail, h, f = (1 - confidence) / 2, np.asarray(hits), np.asarray(false)
    least = np.where(h > 0, beta.ppf(tail, np.maximum(h, 1), n - h + 1), 0.0)
    most = np.where(f < m, beta.ppf(1 - tail, f + 1, np.maximum(m - f, 1)), 1.0)
    return np.maximum(np.log(np.maximum(least - delta, 1e-300) / most), 0.0)


def one_run_lower_bound(
    scores: ArrayLike, included: Sequence[bool] | NDArray[np.bool_], delta: float, confidence: float = 0.95
) -> float:
    """What ε is at least, with ``confidence``, given scores of all canaries of one run, each in or out by a fair coin.

    The attacker guesses at the highest scores (in) and the lowest ones (out), or at the highest alone, at several
    shares of all canaries, and abstains from the rest; the confidence is divided among these ways of guessing.

    Args:
        scores: [M]; higher means that the attacker finds the canary likelier to be in.
        included: bool [M].
        delta: of the claim.
        confidence: chance that the bound is no higher than the true ε.
    """
    values, truth = _scores(scores), np.asarray(included, dtype=np.bool_)
    order = np.argsort(values, kind="stable")
    found = 0.0
    allowed = (1 - confidence) / (2 * len(_SHARES))
    for share in _SHARES:
        each = int(len(values) * share / 2)
        if each:
            put_in, left_out = int(truth[order[-each:]].sum()), int((~truth[order[:each]]).sum())
            for correct, guesses in ((put_in, each), (put_in + left_out, 2 * each)):
                found = max(found, _largest_refuted(correct, guesses, len(values), delta, allowed))
    return found


def _largest_refuted(correct: int, guesses: int, canaries: int, delta: float, allowed: float) -> float:
    low, high = 0.0, _MOST
    if one_run_p_value(correct, guesses, canaries, low, delta) > allowed:
        return 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if one_run_p_value(correct, guesses, canaries, middle, delta) > allowed:
            high = middle
        else:
            low = middle
    return low


def one_run_p_value(correct: int, guesses: int, canaries: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most, if the run was (ε, δ)-DP: theorem 5.2.

    Args:
        correct: v, right guesses.
        guesses: r, all guesses.
        canaries: m, those abstained from too.
        epsilon: of the claim.
        delta: of the claim.
    """
    q = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(correct - 1, guesses, q))
    if not delta or not correct:
        return min(tail, 1.0)
    masses = binom.pmf(np.arange(correct - 1, -1, -1), guesses, q)
    steepest = float((np.cumsum(masses) / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * steepest, 1.0)
