"""The contrastive losses against slow loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.losses import neighbour_contrastive, supervised_contrastive


def unit(*shape: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_neighbour(f, neighbours, bank, own, tau, candidates) -> float:
    """Equation (2) of ECAN with plain numbers; ``candidates`` are the rows that k runs over."""
    total = 0.0
    for i, row in enumerate(f):
        below = sum(math.exp(dot(row, bank[k]) / tau) for k in candidates if k != own[i])
        terms = [math.log(math.exp(dot(row, bank[j]) / tau) / below) for j in neighbours[i]]
        total -= sum(terms) / len(terms)
    return total / len(f)


def slow_supervised(f, labels, tau) -> float:
    each = []
    for i in range(len(f)):
        positives = [a for a in range(len(f)) if a != i and labels[a] == labels[i]]
        if not positives:
            continue
        below = sum(math.exp(dot(f[i], f[b]) / tau) for b in range(len(f)) if b != i)
        each.append(-sum(math.log(math.exp(dot(f[i], f[a]) / tau) / below) for a in positives) / len(positives))
    return sum(each) / len(each) if each else 0.0


def case(seed: int, batch: int, bank_size: int, count: int):
    """A batch inside a bank, with neighbours that never are the row itself."""
    rng = torch.Generator().manual_seed(seed)
    bank = unit(bank_size, 4, seed=seed)
    own = torch.randperm(bank_size, generator=rng)[:batch]
    near = torch.stack(
        [
            torch.tensor([k for k in torch.randperm(bank_size, generator=rng).tolist() if k != i][:count])
            for i in own.tolist()
        ]
    )
    return unit(batch, 4, seed=seed + 1), near, bank, own


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(2, 6),
    extra=st.integers(0, 5),
    count=st.integers(1, 5),
    tau=st.floats(0.05, 2.0),
    denominator=st.sampled_from(["bank", "batch"]),
)
def test_neighbour_contrastive_equals_the_loop(seed, batch, extra, count, tau, denominator):
    f, near, bank, own = case(seed, batch, batch + extra, min(count, batch + extra - 1))
    candidates = range(len(bank)) if denominator == "bank" else own.tolist()
    expected = slow_neighbour(f.tolist(), near.tolist(), bank.tolist(), own.tolist(), tau, candidates)
    found = neighbour_contrastive(f, near, bank, own, tau, denominator)
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    labels=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    tau=st.floats(0.05, 2.0),
)
def test_supervised_contrastive_equals_the_loop(seed, labels, tau):
    f = unit(len(labels), 5, seed=seed)
    found = supervised_contrastive(f, torch.tensor(labels), tau)
    assert found.item() == pytest.approx(slow_supervised(f.tolist(), labels, tau), rel=1e-9, abs=1e-9)


def test_gradients():
    f, near, bank, own = case(3, 4, 7, 2)
    f.requires_grad_(True)
    for denominator in ("bank", "batch"):
        assert torch.autograd.gradcheck(
            lambda x, d=denominator: neighbour_contrastive(x, near, bank, own, 0.2, d), (f,)
        )
    labels = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda x: supervised_contrastive(x, labels, 0.2), (f,))


def test_own_row_is_left_out():
    """The bank's copy of i itself must not count: moving it alone changes nothing."""
    f, near, bank, own = case(5, 3, 8, 2)
    before = neighbour_contrastive(f[:1], near[:1], bank, own[:1], 0.1)
    moved = bank.clone()
    moved[own[0]] = f[0]
    assert neighbour_contrastive(f[:1], near[:1], moved, own[:1], 0.1) == before


def test_no_positive_gives_zero_with_zero_gradient():
    f = unit(3, 4, seed=1).requires_grad_(True)
    loss = supervised_contrastive(f, torch.tensor([0, 1, 2]), 0.1)
    loss.backward()
    assert loss.item() == 0.0
    assert f.grad is not None
    assert torch.equal(f.grad, torch.zeros_like(f))


def test_batch_of_one():
    f = unit(1, 4, seed=1).requires_grad_(True)
    bank = torch.cat([f.detach(), unit(2, 4, seed=2)])
    one = torch.tensor([0])
    assert supervised_contrastive(f, one, 0.1).item() == 0.0
    loss = neighbour_contrastive(f, torch.tensor([[1]]), bank, one, 0.1, "batch")
    loss.backward()
    assert loss.item() == 0.0
    assert f.grad is not None
    assert f.grad.isfinite().all()


@pytest.mark.parametrize("tau", [1e-3, 1e-2, 10.0])
def test_identical_features_and_small_temperatures_stay_finite_in_float32(tau):
    """With all features equal the similarities cancel: the loss is log of the number of candidates."""
    f = torch.ones(4, 9).div(3.0).requires_grad_(True)
    near = torch.tensor([[1, 2], [0, 2], [0, 1], [0, 1]])
    own = torch.arange(4)
    neighbour = neighbour_contrastive(f, near, f.detach(), own, tau)
    supervised = supervised_contrastive(f, torch.zeros(4, dtype=torch.long), tau)
    (neighbour + supervised).backward()
    assert neighbour.item() == pytest.approx(math.log(3), rel=1e-3)
    assert supervised.item() == pytest.approx(math.log(3), rel=1e-3)
    assert f.grad is not None
    assert f.grad.isfinite().all()
