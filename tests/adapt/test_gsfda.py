"""G-SFDA's loss against a double loop, its head, and a shift that it repairs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.adapt import Schedule, adapt, make


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(2, 14),
    share=st.floats(0.1, 1.0),
    classes=st.integers(1, 4),
    near=st.integers(1, 12),
)
def test_loss_equals_the_loop(batch_of, seed, rows, share, classes, near):
    seen = batch_of(max(1, round(share * rows)), rows, classes, seed)
    big_f, big_s, p = seen.bank.features.tolist(), seen.bank.scores.tolist(), seen.p.tolist()

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    clustering = 0.0
    for here, i in enumerate(seen.index.tolist()):
        others = sorted((j for j in range(rows) if j != i), key=lambda j, i=i: -dot(big_f[i], big_f[j]))
        for j in others[:near]:
            clustering -= math.log(dot(p[here], big_s[j])) / len(p)
    mean = [sum(row[c] for row in p) / len(p) for c in range(classes)]
    parts = make("gsfda", {"neighbours": near}).loss(seen)
    assert parts["clustering"].item() == pytest.approx(clustering, rel=1e-9, abs=1e-9)
    assert parts["diversity"].item() == pytest.approx(sum(m * math.log(m) for m in mean), abs=1e-12)


def test_the_head_moves_only_when_asked(shifted):
    quick = Schedule(epochs=2)
    for freeze in (True, False):
        adapted = adapt(shifted.model, shifted.x, make("gsfda", {"freeze_head": freeze}), quick, seed=0).model
        assert torch.equal(adapted.head.direction, shifted.model.head.direction) == freeze
        assert not torch.equal(adapted.bottleneck[0].weight, shifted.model.bottleneck[0].weight)


def test_it_repairs_a_shift(shifted):
    longer = Schedule(epochs=100, learning_rate=1e-3)  # two batches an epoch
    adapted = adapt(shifted.model, shifted.x, make("gsfda"), longer, seed=0).model
    assert shifted.accuracy(adapted) > shifted.accuracy(shifted.model) + 0.02


@pytest.mark.parametrize("count", [2, 3])
def test_small_sites_and_masked_classes(shifted, count):
    mask = torch.tensor([True, True, False])
    adapted = adapt(shifted.model, shifted.x[:count], make("gsfda"), Schedule(epochs=3), seed=0, class_mask=mask)
    assert all(math.isfinite(value) for entry in adapted.history for value in entry.values())
