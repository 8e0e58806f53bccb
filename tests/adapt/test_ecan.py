"""ECAN's loss of one batch against a loop over the paper's five steps."""

from __future__ import annotations

import math

import pytest

from fedser.adapt import Batch, make


def slow_ecan(batch: Batch, tau: float, count: int, denominator: str) -> dict[str, float]:
    """Steps 1 to 5 with lists of plain numbers."""
    big_f, big_s = batch.bank.features.tolist(), batch.bank.scores.tolist()
    index, p = batch.index.tolist(), batch.p.tolist()

    def sim(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(big_f[i], big_f[j], strict=True))

    neighbour, labels = 0.0, []
    for i in index:
        near = sorted((j for j in range(len(big_f)) if j != i), key=lambda j, i=i: -sim(i, j))[:count]
        others = [k for k in (range(len(big_f)) if denominator == "bank" else index) if k != i]
        below = sum(math.exp(sim(i, k) / tau) for k in others)
        neighbour -= sum(math.log(math.exp(sim(i, j) / tau) / below) for j in near) / len(near) / len(index)
        votes = [sum(big_s[j][c] for j in near) / len(near) for c in range(len(big_s[0]))]
        labels.append(votes.index(max(votes)))
    each = []
    for here, i in enumerate(index):
        same = [a for there, a in enumerate(index) if there != here and labels[there] == labels[here]]
        below = sum(math.exp(sim(i, b) / tau) for b in index if b != i)
        if same:
            each.append(-sum(math.log(math.exp(sim(i, a) / tau) / below) for a in same) / len(same))
    mean = [sum(row[c] for row in p) / len(p) for c in range(len(p[0]))]
    return {
        "neighbour": neighbour,
        "supervised": sum(each) / len(each) if each else 0.0,
        "diversity": sum(m * math.log(m) for m in mean),
    }


@pytest.mark.parametrize("denominator", ["bank", "batch"])
@pytest.mark.parametrize("seed", range(5))
def test_loss_equals_the_loop(batch_of, denominator, seed):
    batch = batch_of(6, 11, 3, seed)
    weights = {"neighbour_weight": 0.7, "supervised_weight": 1.3, "diversity_weight": 0.9}
    method = make("ecan", {"temperature": 0.2, "neighbours": 4, "denominator": denominator} | weights)
    expected = slow_ecan(batch, 0.2, 4, denominator)
    found = method.loss(batch)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(weights[f"{name}_weight"] * value, rel=1e-9)
