"""Weighted agreement, log agreement and divergence against double loops, at their edges, and where they must fail."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.losses import agreement, divergence, log_agreement

ABSENT = -1e9


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=compute.generator("terms", seed), dtype=torch.float64)


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


sizes = {
    "seed": st.integers(0, 10**6),
    "batch": st.integers(1, 7),
    "classes": st.integers(1, 5),
    "near": st.integers(1, 4),
}


@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_weighted_agreement_equals_the_loop(seed, batch, classes, near):
    p, scores = drawn(batch, classes, seed=seed).softmax(1), drawn(batch, near, classes, seed=seed + 1).softmax(2)
    weights = drawn(batch, near, seed=seed + 2).sigmoid()
    expected = 0.0
    for i in range(batch):
        for k in range(near):
            expected += float(weights[i, k]) * dot(p[i].tolist(), scores[i, k].tolist()) / batch
    assert agreement(p, scores, weights).item() == pytest.approx(expected, abs=1e-12)
    ones = torch.ones_like(weights)
    assert agreement(p, scores, ones).item() == pytest.approx(agreement(p, scores).item(), abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_log_agreement_equals_the_loop(seed, batch, classes, near):
    logits, scores = drawn(batch, classes, seed=seed), drawn(batch, near, classes, seed=seed + 1).softmax(2)
    p = logits.softmax(1).tolist()
    expected = 0.0
    for i in range(batch):
        for k in range(near):
            expected += math.log(dot(p[i], scores[i, k].tolist())) / batch
    assert log_agreement(logits, scores).item() == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=sizes["seed"], batch=sizes["batch"], classes=sizes["classes"])
def test_divergence_equals_the_loop(seed, batch, classes):
    logits, teacher = drawn(batch, classes, seed=seed), drawn(batch, classes, seed=seed + 1).softmax(1)
    p = logits.softmax(1).tolist()
    expected = 0.0
    for i in range(batch):
        for c in range(classes):
            expected += float(teacher[i, c]) * math.log(float(teacher[i, c]) / p[i][c]) / batch
    assert divergence(teacher, logits).item() == pytest.approx(expected, abs=1e-9)
    assert divergence(logits.softmax(1), logits).item() == pytest.approx(0.0, abs=1e-9)


def test_gradients_flow_through_the_predictions_alone():
    logits = drawn(4, 3, seed=0).requires_grad_(True)
    scores, weights = drawn(4, 2, 3, seed=1).softmax(2), drawn(4, 2, seed=2).sigmoid()
    teacher = drawn(4, 3, seed=3).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: agreement(x.softmax(1), scores, weights), (logits,))
    assert torch.autograd.gradcheck(lambda x: log_agreement(x, scores), (logits,))
    assert torch.autograd.gradcheck(lambda x: divergence(teacher.detach().softmax(1), x), (logits,))
    divergence(teacher.softmax(1), logits).backward()
    assert teacher.grad is None
    assert logits.grad is not None


def test_contradictions_and_absent_classes_stay_finite_in_float32():
    """p_i·S_k is zero in float32 here: the plain logarithm gives an infinite loss and no usable gradient."""
    logits = torch.tensor([[200.0, 0.0, ABSENT], [0.0, 1.0, ABSENT]], requires_grad=True)
    scores = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]])
    assert torch.einsum("bc,bkc->bk", logits.softmax(1), scores).log().isinf().any()
    loss = log_agreement(logits, scores)
    assert loss.item() == pytest.approx(-(200.0 + math.log(1 + math.e)) / 2)
    (divergence(scores[:, 0], logits) - loss).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 2].abs().max() == 0
    assert logits.grad[0, 0].abs() > 0.1  # the contradiction is still felt


@pytest.mark.parametrize("wrong", ["direction", "weights"])
def test_the_oracles_notice_a_wrong_formula(wrong):
    """KL is no symmetric distance, and affinities of one value are no affinities."""
    logits, teacher = drawn(5, 3, seed=4), drawn(5, 3, seed=5).softmax(1)
    if wrong == "direction":
        swapped = divergence(logits.softmax(1), teacher.log())
        assert abs(swapped - divergence(teacher, logits)) > 1e-3
    else:
        scores, weights = drawn(5, 2, 3, seed=6).softmax(2), torch.tensor([[1.0, 0.1]]).expand(5, 2)
        flat = torch.full_like(weights, 0.1)
        assert abs(agreement(teacher, scores, weights) - agreement(teacher, scores, flat)) > 1e-3
