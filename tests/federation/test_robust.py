"""Robust rules against slow loops on exact fractions, and what hostile sites within the norm achieve."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.config import validate
from fedser.errors import ConfigError, QuorumError, WireError
from fedser.federation import robust
from fedser.federation.adam import adam_update
from fedser.federation.aggregate import FixedPointMean, NormBoundedMean, Rule
from fedser.federation.aggregation import ROBUST, AggregationSettings, _rule, server_stages
from fedser.federation.layout import tensor_digest
from fedser.federation.robust import Median, MultiKrum, TrimmedMean, krum
from fedser.federation.schema import Update
from fedser.federation.stages import Received, ServerState, server_step

Row = list[int]
ROWS = st.integers(1, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(-8, 8), min_size=size, max_size=size), min_size=1, max_size=9)
)


def joined(rule: Rule, rows: list[Row], names: list[str] | None = None) -> list[float]:
    for place, row in enumerate(rows):
        rule.add(torch.tensor(row, dtype=torch.float32), 1, names[place] if names else f"{place:03}")
    return rule.result().tolist()


def floats(values: list[Fraction]) -> list[float]:
    return torch.tensor([float(value) for value in values]).tolist()


def slow_trimmed(rows: list[Row], trim: float) -> list[float]:
    cut = min(math.ceil(Fraction(str(trim)) * len(rows)), (len(rows) - 1) // 2)
    columns = [sorted(column)[cut : len(rows) - cut] for column in zip(*rows, strict=True)]
    return floats([Fraction(sum(column), len(column)) for column in columns])


def slow_median(rows: list[Row]) -> list[float]:
    n, columns = len(rows), [sorted(column) for column in zip(*rows, strict=True)]
    return floats([Fraction(column[(n - 1) // 2] + column[n // 2], 2) for column in columns])


def slow_krum(rows: list[Row], f: int) -> list[int]:
    scores = []
    for i, a in enumerate(rows):
        distances = sorted(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) for j, b in enumerate(rows) if j != i)
        scores.append((sum(distances[: len(rows) - f - 2]), i))
    return [i for _, i in sorted(scores)]


@given(ROWS, st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.4, 0.49]))
@settings(max_examples=150, deadline=None)
def test_the_trimmed_mean_by_a_slow_loop(rows: list[Row], trim: float) -> None:
    assert joined(TrimmedMean(len(rows[0]), trim), rows) == slow_trimmed(rows, trim)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_the_median_by_a_slow_loop(rows: list[Row]) -> None:
    assert joined(Median(len(rows[0])), rows) == slow_median(rows)


@given(ROWS.filter(lambda rows: len(rows) >= 3), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_multi_krum_by_a_slow_loop(rows: list[Row], f: int) -> None:
    rule = MultiKrum(len(rows[0]), f)
    if len(rows) <= 2 * f + 2:
        with pytest.raises(QuorumError, match=f"needs {2 * f + 3} updates"):
            joined(rule, rows)
        return
    chosen = slow_krum(rows, f)[: len(rows) - f]
    expected = [Fraction(sum(column), len(chosen)) for column in zip(*(rows[i] for i in chosen), strict=True)]
    assert joined(rule, rows) == floats(expected)


@given(ROWS, st.floats(0.5, 20))
@settings(max_examples=150, deadline=None)
def test_the_norm_bounded_mean_by_a_slow_loop(rows: list[Row], bound: float) -> None:
    expected = [0.0] * len(rows[0])
    for row in rows:
        norm = math.sqrt(sum(value**2 for value in row))
        share = min(1.0, bound / norm) if norm else 1.0
        expected = [old + share * value / len(rows) for old, value in zip(expected, row, strict=True)]
    assert joined(NormBoundedMean(len(rows[0]), bound), rows) == pytest.approx(expected, abs=1e-5)


def rules(size: int) -> dict[str, Rule]:
    names = ("mean", "norm_bounded", "trimmed_mean", "median", "multi_krum")
    return {name: _rule(AggregationSettings(rule=name))(size) for name in names}


@pytest.mark.parametrize("name", list(rules(1)))
def test_every_order_of_arrival_gives_the_same_bits(name: str) -> None:
    random = torch.Generator().manual_seed(3)
    flats = [scale * torch.randn(30, generator=random) for scale in (0.1, 1.0, 1.0, 3.0)] + [torch.ones(30)] * 2
    results = []
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 17):
        rule = rules(30)[name]
        for place in order:
            rule.add(flats[place], 1, f"site-{place}")
        results.append(rule.result())
    assert all(torch.equal(result, results[0]) for result in results)


def test_equal_scores_are_decided_by_the_sites_names() -> None:
    rows = [[2], [-2], [0], [0], [0]]  # with f = 1 four are chosen; the first two score alike, and worst
    assert joined(MultiKrum(1, 1), rows, ["a", "b", "c", "d", "e"]) == [0.5]
    assert joined(MultiKrum(1, 1), rows, ["b", "a", "c", "d", "e"]) == [-0.5]


@pytest.mark.parametrize("name", list(rules(1)))
def test_no_update_means_no_change_and_bad_ones_are_refused(name: str) -> None:
    assert rules(3)[name].result().tolist() == [0.0, 0.0, 0.0]
    rule = rules(2)[name]
    for place in range(5):
        rule.add(torch.tensor([1.0, 2.0]), 1, f"{place}")
    bad = [torch.zeros(1), torch.zeros(3), torch.zeros(2, 1), torch.tensor([0.0, float("nan")]), torch.full((2,), 1e9)]
    for flat in bad:
        with pytest.raises(WireError):
            rule.add(flat, 1, "x")
    for weight in (0, -1, 10**12):
        with pytest.raises(WireError):
            rule.add(torch.zeros(2), weight, "x")
    bounded = 0.5 / math.sqrt(5) if name == "norm_bounded" else 1.0
    assert rule.result().tolist() == pytest.approx([bounded, 2 * bounded], abs=1e-6)


def test_columns_in_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    flats = list(torch.randn(7, 50, generator=torch.Generator().manual_seed(1)))
    whole = (robust._middle(flats, 2, 50), krum(flats, 1))
    monkeypatch.setattr(robust, "_COLUMNS", 9)
    assert torch.equal(robust._middle(flats, 2, 50), whole[0])
    assert krum(flats, 1) == whole[1]


@given(st.integers(0, 10**6), st.sampled_from(["trimmed_mean", "median", "multi_krum"]), st.floats(1, 10))
@settings(max_examples=60, deadline=None)
def test_two_of_ten_sites_that_flip_signs_barely_move_a_robust_rule(seed: int, name: str, strength: float) -> None:
    """Within the norm: as long as the longest honest update, times at most 10 where the provider allows it."""
    random = torch.Generator().manual_seed(seed)
    common = torch.randn(200, generator=random)
    honest = [common + 0.5 * torch.randn(200, generator=random) for _ in range(8)]
    centre = torch.stack(honest).mean(dim=0)
    hostile = [-strength * flat for flat in honest[:2]]

    def distance(rule: Rule) -> float:
        for place, flat in enumerate([*honest, *hostile]):
            rule.add(flat, 1, f"{place:02}")
        return float((rule.result() - centre).norm() / centre.norm())

    made = _rule(AggregationSettings(rule=name, byzantine=2))(200)
    assert distance(made) < 0.25
    assert distance(FixedPointMean(200)) > 0.35


def received(site: str, flat: torch.Tensor, utterances: int | None = None) -> Received:
    digest = tensor_digest(flat)
    return Received(site, Update(1, digest, digest, utterances, None), flat)


def test_adam_by_a_scalar_loop() -> None:
    stages = server_stages(AggregationSettings(optimiser="adam", momentum=0.9, beta2=0.9, epsilon=0.01, rate=0.1))
    tensors, state = torch.tensor([1.0, -2.0]), ServerState()
    expected = [[1.0, 0.0, 0.0001], [-2.0, 0.0, 0.0001]]  # w, m, v
    for step in range(4):
        update = torch.tensor([0.5 - step, 0.25])
        tensors, state = server_step(stages, tensors, [received("a", update)], state)
        for place, values in enumerate(expected):
            change = float(update[place])
            values[1] = 0.9 * values[1] + 0.1 * change
            values[2] = 0.9 * values[2] + 0.1 * change**2
            values[0] += 0.1 * values[1] / (math.sqrt(values[2]) + 0.01)
    assert tensors.tolist() == pytest.approx([w for w, _, _ in expected], abs=1e-5)
    assert state.second is not None
    assert state.second.tolist() == pytest.approx([v for _, _, v in expected], abs=1e-6)


def test_adam_without_updates_stands_still() -> None:
    tensors, _ = server_step((adam_update(),), torch.ones(2), [], ServerState())
    assert tensors.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("rule", ROBUST)
def test_counts_are_no_votes(rule: str) -> None:
    with pytest.raises(ConfigError, match="weighs all sites alike"):
        validate(AggregationSettings, {"rule": rule, "weighting": "counts"})


def test_counts_weigh_in_the_norm_bounded_mean() -> None:
    stages = server_stages(AggregationSettings(rule="norm_bounded", weighting="counts", bound=1.0, rate=1.0))
    updates = [received("a", torch.tensor([1.0]), 50), received("b", torch.tensor([-9.0]), 150)]
    assert server_step(stages, torch.zeros(1), updates, ServerState())[0].tolist() == pytest.approx([-0.5])


def test_the_default_is_the_simulations_mean_and_step() -> None:
    updates = [received("a", torch.tensor([0.1])), received("b", torch.tensor([0.3]))]
    tensors, _ = server_step(server_stages(AggregationSettings()), torch.zeros(1), updates, ServerState())
    assert tensors.tolist() == pytest.approx([0.6])
