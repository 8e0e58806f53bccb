"""Diversity against a loop, its extremes and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.losses import diversity


def slow(rows: list[list[float]]) -> float:
    total = 0.0
    for c in range(len(rows[0])):
        mean = sum(row[c] for row in rows) / len(rows)
        if mean > 0:
            total += mean * math.log(mean)
    return total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.integers(1, 6))
def test_equals_the_loop(seed, batch, classes):
    logits = torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = logits.softmax(dim=1)
    assert diversity(p).item() == pytest.approx(slow(p.tolist()), abs=1e-12)


def test_extremes():
    assert diversity(torch.eye(4)).item() == pytest.approx(-math.log(4))
    assert diversity(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item() == 0.0


def test_gradient_also_with_a_masked_class():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: diversity(x.softmax(dim=1)), (logits,))
    masked = logits.masked_fill(torch.tensor([False, True, False, False]), -1e9)
    diversity(masked.softmax(dim=1)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 1].abs().max() == 0
    assert logits.grad[:, 0].abs().max() > 0
