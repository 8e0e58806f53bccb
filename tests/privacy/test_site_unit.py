"""The site unit's arithmetic: the sensitivity after rounding, and what sums of shares are worth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedser.privacy import site_unit
from fedser.privacy.site_unit import (
    grid_of,
    noise_of_share,
    noise_of_sum,
    noised,
    on_grid,
    released,
    sensitivity,
    share_std,
)


def norm_squared(steps: NDArray[np.int64]) -> int:
    return sum(int(n) ** 2 for n in steps)


def bound(clip: float, grid: float, values: int) -> Fraction:
    return (Fraction(sensitivity(clip, grid, values)) / Fraction(grid)) ** 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    st.floats(1e-3, 1e3),
    st.floats(1e-4, 1.0),
)
def test_no_vector_is_longer_than_the_sensitivity_on_any_grid(values: list[float], clip: float, part: float) -> None:
    """In exact arithmetic, coarse grids too."""
    grid = clip * part
    assert norm_squared(on_grid(torch.tensor(values), clip, grid)) <= bound(clip, grid, len(values))


@pytest.mark.parametrize("values", [1, 2, 17, 4096])
def test_rounding_does_inflate_a_norm_and_the_sensitivity_covers_it(values: int) -> None:
    """Just above half a step in each coordinate rounds up: a sensitivity of C alone would be false."""
    grid = 1.0
    flat = torch.full((values,), 0.500001)
    clip = 0.500001 * math.sqrt(values)
    steps = norm_squared(on_grid(flat, clip, grid))
    assert steps == values  # norm √P, about twice the clip
    assert steps > clip**2
    assert steps <= bound(clip, grid, values)


@pytest.mark.parametrize("values", [1, 100, 123_457])
def test_the_public_grid_is_fine(values: int) -> None:
    for clip in (1e-3, 1.0, 37.0):
        grid = grid_of(clip, values)
        assert math.log2(grid).is_integer()
        assert clip < sensitivity(clip, grid, values) <= clip * (1 + 1 / 128)


def test_neighbours_random_and_optimised_stay_within_the_sensitivity() -> None:
    """With the site and without it: 10⁴ random updates, and 10³ pushed towards the worst rounding."""
    draw = torch.Generator().manual_seed(0)
    clip, values = 1.0, 8
    grid = clip / 4  # coarse, so that rounding matters
    worst = Fraction(0)
    for number in range(11_000):
        flat = torch.randn(values, generator=draw) * 10 ** float(torch.randn((), generator=draw))
        if number >= 10_000:  # coordinates just above a half step, as many as the clip allows
            flat = (torch.randint(-2, 3, (values,), generator=draw) + 0.5 + 1e-6) * grid
        worst = max(worst, Fraction(norm_squared(on_grid(flat, clip, grid))))
    limit = bound(clip, grid, values)
    assert worst <= limit
    assert worst > (Fraction(clip) / Fraction(grid)) ** 2  # and the clip alone would have been too little


def test_short_updates_are_only_rounded_and_long_ones_keep_their_direction() -> None:
    flat = torch.tensor([0.25, -0.5, 0.1])
    assert on_grid(flat, 1.0, 0.01).tolist() == [25, -50, 10]
    long = on_grid(100 * flat, 1.0, 1e-6).astype(float)
    assert np.allclose(long / np.linalg.norm(long), flat.numpy() / np.linalg.norm(flat.numpy()), atol=1e-5)
    assert np.linalg.norm(long) == pytest.approx(1e6, rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_counts_as_zeros(bad: float) -> None:
    assert on_grid(torch.tensor([1.0, bad]), 1.0, 0.1).tolist() == [0, 0]


def test_zeros_stay_zeros_and_nothing_is_nothing() -> None:
    assert on_grid(torch.zeros(3), 1.0, 0.1).tolist() == [0, 0, 0]
    assert len(released(torch.zeros(0), 1.0, 1.0)) == 0


def test_the_noise_is_that_of_the_sensitivity_on_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def draw(size: int, std: float) -> NDArray[np.int64]:
        asked.append(std)
        return np.zeros(size, dtype=np.int64)

    monkeypatch.setattr(site_unit, "discrete_gaussian", draw)
    out = released(torch.ones(100), 2.0, 3.0)
    grid = grid_of(2.0, 100)
    assert asked == [3.0 * sensitivity(2.0, grid, 100) / grid]
    assert float(out.norm()) == pytest.approx(2.0, rel=1e-2)
    assert bool((out / grid == (out / grid).round()).all())  # nothing between the grid's points leaves


def test_noise_is_integers_and_fresh() -> None:
    steps = np.arange(50)
    first, second = noised(steps, 1e4), noised(steps, 1e4)
    assert first.dtype == np.int64
    assert (first != second).any()


def test_a_share_is_the_target_divided_by_the_sites_own_number() -> None:
    """Nothing of the server's count is in it."""
    whole = 3.0 * sensitivity(1.0, grid_of(1.0, 100), 100) / grid_of(1.0, 100)
    assert share_std(1.0, 3.0, 100, 4) == pytest.approx(whole / 2)
    assert noise_of_share(3.0, 9) == pytest.approx(1.0)  # what is left where all others collude
    with pytest.raises(ValueError, match="narrow"):
        share_std(1.0, 0.01, 1, 1000)


def renyi(p: NDArray[np.float64], shift: int, order: float) -> float:
    """Rényi divergence of a distribution on integers from itself, shifted, term by term."""
    moved = np.roll(p, shift)
    kept = (p > 1e-250) & (moved > 1e-250)
    terms = np.exp(order * np.log(p[kept]) + (1 - order) * np.log(moved[kept]))
    return math.log(float(terms.sum())) / (order - 1)


@pytest.mark.parametrize("std", [0.6, 0.8, 1.5])
@pytest.mark.parametrize("shares", [2, 3])
def test_a_sum_of_narrow_shares_costs_what_the_theorem_says(std: float, shares: int) -> None:
    """Shares of hardly a grid step, where the sum is not a discrete Gaussian, against their exact divergence."""
    n = np.arange(-60, 61)
    one = np.exp(-(n**2) / (2 * std**2))
    one /= one.sum()
    total = one
    for _ in range(shares - 1):
        total = np.convolve(total, one)
    whole = std * math.sqrt(shares)
    told = noise_of_sum(whole, std, 1, shares)
    assert told < whole or std > 1
    for order in (1.5, 2.0, 4.0):
        assert renyi(total, 1, order) <= order / (2 * told**2) + 1e-9


def test_a_sum_of_wide_shares_costs_what_one_gaussian_does() -> None:
    assert noise_of_sum(3.0, 4.0, 10_000_000, 50) == pytest.approx(3.0, rel=1e-12)
    assert noise_of_sum(3.0, 0.5, 1000, 2) < 2.0
