"""Bounds from below: never above the truth more often than they say, and above a false claim."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from fedser.privacy.audit_epsilon import epsilon_lower_bound, one_run_lower_bound, one_run_p_value

DELTA = 1e-5


def gaussian_epsilon(noise: float, delta: float = DELTA) -> float:
    """ε of one Gaussian release, by bisection of the exact δ(ε) (Balle and Wang 2018, theorem 8)."""

    def spent(epsilon: float) -> float:
        shift = epsilon * noise
        return float(norm.cdf(0.5 / noise - shift) - math.exp(epsilon) * norm.cdf(-0.5 / noise - shift))

    low, high = 0.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


@pytest.mark.parametrize(("noise", "part"), [(4.0, 0.02), (1.5, 0.15), (0.8, 0.25)])
def test_independent_releases_stay_below_the_truth_and_come_near(noise: float, part: float) -> None:
    draw = np.random.default_rng(0)
    bounds = [epsilon_lower_bound(1 / noise + draw.normal(size=2000), draw.normal(size=2000), DELTA) for _ in range(60)]
    truth = gaussian_epsilon(noise)
    assert sum(bound > truth for bound in bounds) <= 3
    assert np.median(bounds) > part * truth  # an attacker with one threshold proves part of it


def test_noise_switched_off_is_found() -> None:
    assert epsilon_lower_bound(np.ones(1000), np.zeros(1000), DELTA) > 4.5
    assert one_run_lower_bound(np.arange(1000), np.arange(1000) >= 500, DELTA) > 4.0


def test_a_false_claim_is_refuted() -> None:
    """Noise for ε = 1, a tenth of it added."""
    noise = 3.73
    assert gaussian_epsilon(noise) == pytest.approx(1.0, abs=0.01)
    draw = np.random.default_rng(1)
    assert epsilon_lower_bound(10 / noise + draw.normal(size=1000), draw.normal(size=1000), DELTA) > 1.0


def test_both_directions_are_looked_at() -> None:
    """A score that now and then gives the canary away, and one that now and then shows that it is missing."""
    draw = np.random.default_rng(2)
    rare = np.where(draw.random(4000) < 0.3, 10.0, 0.0)
    put_in = epsilon_lower_bound(rare, np.zeros(4000), DELTA)
    assert put_in == pytest.approx(epsilon_lower_bound(np.zeros(4000), -rare, DELTA))
    assert put_in > 4


def test_scores_that_tell_nothing() -> None:
    draw = np.random.default_rng(3)
    bounds = [epsilon_lower_bound(draw.normal(size=500), draw.normal(size=500), DELTA) for _ in range(100)]
    assert sum(bound > 0 for bound in bounds) <= 12
    assert epsilon_lower_bound(np.zeros(500), np.zeros(500), DELTA) == 0


def test_one_run_of_independent_coins_stays_below_the_truth() -> None:
    draw, noise = np.random.default_rng(4), 1.0
    bounds = []
    for _ in range(60):
        included = draw.random(1000) < 0.5
        bounds.append(one_run_lower_bound(included / noise + draw.normal(size=1000), included, DELTA))
    truth = gaussian_epsilon(noise)
    assert sum(bound > truth for bound in bounds) <= 3
    assert np.median(bounds) > 0.5


def test_the_p_value_by_hand() -> None:
    """Randomised response of ε = 1: right guesses are binomial; δ = 0."""
    q = math.e / (1 + math.e)
    by_hand = sum(math.comb(20, k) * q**k * (1 - q) ** (20 - k) for k in range(18, 21))
    assert one_run_p_value(18, 20, 20, 1.0, 0.0) == pytest.approx(by_hand)
    steepest = max(sum(float(binom.pmf(18 - i, 20, q)) for i in range(1, j + 1)) / j for j in range(1, 19))
    assert one_run_p_value(18, 20, 30, 1.0, 1e-3) == pytest.approx(by_hand + 2 * 30 * 1e-3 * steepest)


def test_too_few_or_no_numbers_are_refused() -> None:
    for given in ([1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="two scores"):
            epsilon_lower_bound(given, [0.0, 0.0], DELTA)
