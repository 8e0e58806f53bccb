"""NRC's affinities and loss against double loops, the public script's error, and a shift that it repairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.adapt import Bank, Batch, Schedule, adapt, make


def slow_nrc(batch: Batch, near: int, expanded: int, weak: float) -> dict[str, float]:
    """The loss with plain numbers; the affinity of a neighbour is looked up anew for each pair."""
    big_f, big_s = batch.bank.features.tolist(), batch.bank.scores.tolist()
    p, rows = batch.p.tolist(), range(len(batch.bank))

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    def nearest(i: int, count: int) -> list[int]:
        return sorted((j for j in rows if j != i), key=lambda j: -dot(big_f[i], big_f[j]))[:count]

    first, second = 0.0, 0.0
    for here, i in enumerate(batch.index.tolist()):
        for k in nearest(i, near):
            affinity = 1.0 if i in nearest(k, expanded) else weak
            first -= affinity * dot(big_s[k], p[here]) / len(p)
            for m in nearest(k, expanded):  # i itself stays, and duplicates count
                second -= weak * dot(big_s[m], p[here]) / len(p)
    mean = [sum(row[c] for row in p) / len(p) for c in range(len(p[0]))]
    return {"neighbours": first, "expanded": second, "diversity": sum(m * math.log(m) for m in mean)}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 12),
    share=st.floats(0.1, 1.0),
    classes=st.integers(1, 4),
    near=st.integers(1, 6),
    expanded=st.integers(1, 6),
    weak=st.floats(0.0, 1.0),
)
def test_loss_equals_the_loop(batch_of, seed, rows, share, classes, near, expanded, weak):
    seen = batch_of(max(1, round(share * rows)), rows, classes, seed)
    expected = slow_nrc(seen, near, expanded, weak)
    found = make("nrc", {"neighbours": near, "expanded": expanded, "affinity": weak}).loss(seen)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, rel=1e-6, abs=1e-9)


def test_reciprocal_neighbours_keep_their_full_affinity(batch_of):
    """One public script fills the affinities with the weak one through a view: the loop must notice that."""
    seen = batch_of(6, 12, 3, seed=1)
    overwritten = {"neighbours": 0.1 * slow_nrc(seen, 4, 3, 1.0)["neighbours"]}
    found = make("nrc", {"neighbours": 4, "expanded": 3}).loss(seen)
    assert abs(found["neighbours"].item() - overwritten["neighbours"]) > 0.1


def test_twins_are_reciprocal_and_a_follower_is_not():
    """Rows 0 and 1 lie together; 2 looks at them, they never look back."""
    bank = Bank(torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.8, 0.6], [-1.0, 0.0]]), torch.eye(4, 3))
    index = torch.tensor([0, 2])
    p = torch.full((2, 3), 1 / 3)
    seen = Batch(index, bank.features[index], bank.features[index], p, p.log(), bank, None, 0.0)
    own = make("nrc", {"neighbours": 1, "expanded": 1})
    assert own.loss(seen)["neighbours"].item() == pytest.approx(-(1.0 + 0.1) / 3 / 2)


def test_the_head_is_trained_as_the_authors_do_unless_frozen(shifted):
    quick = Schedule(epochs=2)
    for freeze in (True, False):
        adapted = adapt(shifted.model, shifted.x, make("nrc", {"freeze_head": freeze}), quick, seed=0).model
        assert torch.equal(adapted.head.direction, shifted.model.head.direction) == freeze
    assert not make("nrc").settings.freeze_head


def test_it_repairs_a_shift(shifted):
    adapted = adapt(shifted.model, shifted.x, make("nrc"), seed=0).model
    assert shifted.accuracy(adapted) > shifted.accuracy(shifted.model) + 0.02


@pytest.mark.parametrize("count", [2, 3])
def test_small_sites_and_masked_classes(shifted, count):
    mask = torch.tensor([True, True, False])
    adapted = adapt(shifted.model, shifted.x[:count], make("nrc"), Schedule(epochs=3), seed=0, class_mask=mask)
    assert all(math.isfinite(value) for entry in adapted.history for value in entry.values())
