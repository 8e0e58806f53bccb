"""Entropy, agreement and overlap of predictions against loops, with gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.losses import agreement, mean_entropy, overlap


def predictions(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=compute.generator("p", seed), dtype=torch.float64).softmax(dim=-1)


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 7), classes=st.integers(1, 5), near=st.integers(1, 4))
def test_equal_the_loops(seed, batch, classes, near):
    p, scores = predictions(batch, classes, seed=seed), predictions(batch, near, classes, seed=seed + 1)
    rows, others = p.tolist(), scores.tolist()
    entropy = sum(-sum(v * math.log(v) for v in row) for row in rows) / batch
    attracted = sum(dot(rows[i], other) for i in range(batch) for other in others[i]) / batch
    shared = sum(dot(rows[i], rows[j]) for i in range(batch) for j in range(batch) if i != j) / batch
    assert mean_entropy(p).item() == pytest.approx(entropy, abs=1e-12)
    assert agreement(p, scores).item() == pytest.approx(attracted, abs=1e-12)
    assert overlap(p).item() == pytest.approx(shared, abs=1e-12)


def test_gradients_flow_through_both_factors_of_overlap():
    logits = torch.randn(4, 3, generator=compute.generator("g"), dtype=torch.float64).requires_grad_(True)
    scores = predictions(4, 2, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: mean_entropy(x.softmax(dim=1)), (logits,))
    assert torch.autograd.gradcheck(lambda x: agreement(x.softmax(dim=1), scores), (logits,))
    assert torch.autograd.gradcheck(lambda x: overlap(x.softmax(dim=1)), (logits,))


def test_masked_classes_give_finite_gradients():
    logits = torch.randn(4, 3, generator=compute.generator("g")).requires_grad_(True)
    masked = logits.masked_fill(torch.tensor([False, False, True]), -1e9)
    mean_entropy(masked.softmax(dim=1)).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_extremes():
    assert mean_entropy(torch.eye(3)).item() == 0.0
    assert mean_entropy(torch.full((2, 4), 0.25)).item() == pytest.approx(math.log(4))
    assert overlap(torch.eye(3)).item() == 0.0
    assert overlap(torch.tensor([[1.0, 0.0]])).item() == 0.0
