from __future__ import annotations

import numpy as np
import pytest

from fedser.evaluate.bench.bootstrap import Cells, differences, holm

PAIR, OTHER = ("a", "b"), ("c", "d")


def made(seed: int = 0, *, better: float = 0.0) -> dict[tuple[tuple[str, str], str, str], dict[str, list]]:
    """Two pairs, three seeds, five speakers, two methods of which one may be better by some answers."""
    random = np.random.default_rng(seed)
    cells = {}
    for pair in (PAIR, OTHER):
        for number in range(3):
            truth = {f"s{k}": random.integers(0, 3, 20) for k in range(5)}
            for method, skill in (("ours", 0.5 + better), ("theirs", 0.5)):
                counts = {}
                for speaker, true in truth.items():
                    right = random.random(20) < skill
                    answered = np.where(right, true, (true + 1) % 3)
                    table = np.zeros((3, 3), dtype=int)
                    np.add.at(table, (true, answered), 1)
                    counts[speaker] = [(t, a, int(table[t, a])) for t in range(3) for a in range(3) if table[t, a]]
                cells[pair, str(number), method] = counts
    return cells


def slow(cells: Cells, resamples: int, seed: int) -> tuple[float, float]:
    """The same interval by a plain loop over drawn names, with another random stream."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        seeds = random.choice(["0", "1", "2"], 3)
        speakers = {target: random.choice([f"s{k}" for k in range(5)], 5) for target in ("b", "d")}
        total = 0.0
        for pair in (PAIR, OTHER):
            for number in seeds:
                for method, sign in (("ours", 1), ("theirs", -1)):
                    hits, sizes = [0, 0, 0], [0, 0, 0]
                    for name in speakers[pair[1]]:
                        for true, answered, count in cells[pair, number, method][name]:
                            sizes[true] += count
                            hits[true] += count * (true == answered)
                    recalls = [h / n for h, n in zip(hits, sizes, strict=True) if n]
                    total += sign * sum(recalls) / len(recalls) / 6
        found.append(100 * total)
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def test_the_interval_is_that_of_a_plain_loop() -> None:
    cells = made(better=0.1)
    fast = differences(cells, "ours", ["theirs"], resamples=4000)["theirs"]
    low, high = slow(cells, 1500, seed=3)
    assert fast.low == pytest.approx(low, abs=0.6)
    assert fast.high == pytest.approx(high, abs=0.6)
    assert fast.low < fast.mean < fast.high


def test_the_difference_by_hand() -> None:
    ours = {"x": [(0, 0, 3), (0, 1, 1), (1, 1, 4)], "y": [(0, 0, 1), (1, 0, 4)]}
    theirs = {"x": [(0, 1, 4), (1, 1, 4)], "y": [(0, 0, 1), (1, 1, 4)]}
    cells = {(PAIR, "0", "ours"): ours, (PAIR, "0", "theirs"): theirs}
    found = differences(cells, "ours", ["theirs"], resamples=200)["theirs"]
    assert found.mean == pytest.approx(100 * ((4 / 5 + 4 / 8) / 2 - (1 / 5 + 8 / 8) / 2))
    assert (found.pairs, found.seeds) == (1, 1)
    # Drawing x twice, y twice or one of each are the only outcomes.
    outcomes = [100 * ((3 / 4 + 1) / 2 - (0 + 1) / 2), found.mean, 100 * ((1 + 0) / 2 - (1 + 1) / 2)]
    assert found.low == pytest.approx(min(outcomes))
    assert found.high == pytest.approx(max(outcomes))


def test_equal_methods_differ_by_nothing_and_a_clear_winner_is_found() -> None:
    cells = made()
    twins = cells | {(p, s, "twin"): c for (p, s, m), c in cells.items() if m == "ours"}
    same = differences(twins, "ours", ["twin"], resamples=300)["twin"]
    assert (same.mean, same.low, same.high, same.p, same.holm) == (0.0, 0.0, 0.0, 1.0, 1.0)
    clear = differences(made(better=0.45), "ours", ["theirs"], resamples=2000)["theirs"]
    assert clear.low > 20
    assert clear.p == pytest.approx(2 / 2001)


def test_chance_is_found_significant_about_as_often_as_it_should() -> None:
    p = [differences(made(seed), "ours", ["theirs"], resamples=200)["theirs"].p for seed in range(60)]
    assert sum(value < 0.05 for value in p) <= 9  # five speakers and three seeds: the bootstrap is a little bold


def test_only_pairs_and_seeds_of_both_count() -> None:
    cells = made()
    del cells[PAIR, "2", "theirs"]
    found = differences(cells, "ours", ["theirs", "nobody"], resamples=100)
    assert (found["theirs"].pairs, found["theirs"].seeds) == (2, 2)
    assert "nobody" not in found


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.6})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.6})
    assert holm({"a": 0.7, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
