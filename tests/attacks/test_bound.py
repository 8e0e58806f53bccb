"""The lower bound of ε: never above the truth of a mechanism that is known, and awake where nothing is hidden."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant

from fedser.attacks.bound import epsilon_lower_bound


@pytest.mark.parametrize("noise", [0.5, 1.0, 3.0])
def test_it_stays_below_the_epsilon_of_a_gaussian(noise: float) -> None:
    true = PLDAccountant().compose(GaussianDpEvent(noise)).get_epsilon(1e-5)
    draw = np.random.default_rng(3)
    bounds = [
        epsilon_lower_bound(draw.normal(1, noise, 2000), draw.normal(0, noise, 2000), 1e-5, 0.95) for _ in range(40)
    ]
    assert max(bounds) <= true
    if noise <= 1:
        assert np.median(bounds) > 0.25 * true  # and it is no empty promise


def test_without_noise_it_reaches_what_so_many_canaries_can_show() -> None:
    inside, outside = np.ones(1000), np.zeros(1000)
    low, high = 0.025 ** (1 / 500), 1 - 0.025 ** (1 / 500)  # Clopper-Pearson of 500 in 500 and 0 in 500
    assert epsilon_lower_bound(inside, outside, 0.0, 0.95) == pytest.approx(math.log(low / high))


def test_it_sees_nothing_where_there_is_nothing() -> None:
    draw = np.random.default_rng(1)
    assert epsilon_lower_bound(-np.ones(400), np.zeros(400), 1e-5, 0.95) == 0.0
    same = [epsilon_lower_bound(draw.normal(size=400), draw.normal(size=400), 1e-5, 0.95) for _ in range(40)]
    assert sum(bound > 0 for bound in same) <= 6  # 5 % of them may be above the truth, which is 0


def test_a_rare_canary_is_told_by_how_rarely_it_scores_low() -> None:
    """Half of the releases hold the canary: the true-positive rate ends at one half, and the bound says so."""
    draw = np.random.default_rng(2)
    inside = (draw.random(2000) < 0.5).astype(float)
    bound = epsilon_lower_bound(inside, np.zeros(2000), 0.0, 0.95)
    assert 4.5 < bound < math.log(0.55 * 1000 / 3)
    turned = epsilon_lower_bound(np.ones(2000), (draw.random(2000) < 0.5).astype(float), 0.0, 0.95)
    assert 4.5 < turned < math.log(0.55 * 1000 / 3)  # told by how rarely a release with it scores low
