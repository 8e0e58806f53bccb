"""The mean: right, exact under every order, and closed to values that would spoil it."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.errors import WireError
from fedser.federation.aggregate import LARGEST_WEIGHT, FixedPointMean, quantise, weight_of


def updates(count: int, size: int = 50, seed: int = 0) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    scales = torch.logspace(-6, 2, count)
    return [scale * torch.randn(size, generator=random) for scale in scales]


def mean_of(flats: list[torch.Tensor], weights: list[int]) -> torch.Tensor:
    rule = FixedPointMean(len(flats[0]))
    for flat, weight in zip(flats, weights, strict=True):
        rule.add(flat, weight)
    return rule.result()


def test_every_order_gives_the_same_bits() -> None:
    flats, weights = updates(5), [1, 3, 2, 7, 1]
    expected = mean_of(flats, weights)
    for order in itertools.permutations(range(5)):
        assert torch.equal(mean_of([flats[i] for i in order], [weights[i] for i in order]), expected)


def test_a_plain_float_sum_would_depend_on_the_order() -> None:
    flats = [0.1 * flat for flat in updates(5)]
    sums = {
        tuple(sum((flats[i] for i in order), torch.zeros(50)).tolist()) for order in itertools.permutations(range(5))
    }
    assert len(sums) > 1


@given(st.lists(st.tuples(st.floats(-100, 100, width=32), st.integers(1, LARGEST_WEIGHT)), min_size=1, max_size=9))
@settings(max_examples=100, deadline=None)
def test_the_mean_by_a_slow_loop(pairs: list[tuple[float, int]]) -> None:
    flats, weights = [torch.tensor([value]) for value, _ in pairs], [weight for _, weight in pairs]
    expected = sum(value * weight for value, weight in pairs) / sum(weights)
    assert mean_of(flats, weights).item() == pytest.approx(expected, abs=1e-5)


def test_the_largest_sums_do_not_overflow() -> None:
    rule = FixedPointMean(1)
    for _ in range(300):
        rule.add(torch.tensor([32_000.0]), LARGEST_WEIGHT)
    assert rule.result().item() == 32_000.0
    # the bound that the constants promise: values × weights × sites < 2^63
    from fedser.federation import aggregate

    bound = aggregate.LARGEST_VALUE * 2**aggregate.GRID_BITS * LARGEST_WEIGHT * aggregate.MOST_SITES
    assert bound <= 2**62


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e9, -40_000.0])
def test_a_bad_value_is_refused_and_leaves_the_mean_alone(value: float) -> None:
    rule = FixedPointMean(2)
    rule.add(torch.tensor([1.0, 2.0]), 1)
    with pytest.raises(WireError):
        rule.add(torch.tensor([0.0, value]), 1)
    assert rule.result().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("weight", [0, -1, LARGEST_WEIGHT + 1, 10**12])
def test_a_bad_weight_is_refused(weight: int) -> None:
    with pytest.raises(WireError):
        FixedPointMean(1).add(torch.zeros(1), weight)


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_a_tensor_of_another_shape_is_never_broadcast(shape: tuple[int, ...]) -> None:
    with pytest.raises(WireError):
        FixedPointMean(2).add(torch.zeros(shape), 1)


def test_no_update_means_no_change() -> None:
    assert FixedPointMean(3).result().tolist() == [0.0, 0.0, 0.0]


def test_the_grid_is_finer_than_what_matters() -> None:
    flat = torch.randn(1000, generator=torch.Generator().manual_seed(1)) * 1e-2
    assert (quantise(flat).double() / 2**24 - flat.double()).abs().max() <= 2**-25


def test_weights_are_bounded() -> None:
    assert weight_of(None, "counts") == 1
    assert weight_of(500, "uniform") == 1
    assert weight_of(500, "counts") == 10
    assert weight_of(1, "counts") == 1
    assert weight_of(10**12, "counts") == LARGEST_WEIGHT
