"""The memory bank against a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.adapt import bank as bank_module
from fedser.adapt.bank import Bank


def random_bank(rows: int, seed: int) -> Bank:
    rng = compute.generator("bank", seed)
    return Bank(
        torch.randn(rows, 4, generator=rng, dtype=torch.float64),
        torch.rand(rows, 3, generator=rng, dtype=torch.float64).softmax(dim=1),
    )


def slow_neighbours(features: list[list[float]], row: int, count: int) -> list[int]:
    def cosine(a, b):
        inner = sum(x * y for x, y in zip(a, b, strict=True))
        return inner / (math.hypot(*a) * math.hypot(*b))

    others = [k for k in range(len(features)) if k != row]
    return sorted(others, key=lambda k: -cosine(features[row], features[k]))[:count]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(2, 12), count=st.integers(1, 14))
def test_neighbours_equal_the_loop(seed, rows, count):
    bank = random_bank(rows, seed)
    index = torch.randperm(rows, generator=compute.generator("rows", seed))[: max(1, rows // 2)]
    found = bank.neighbours(index, count)
    assert found.shape == (len(index), min(count, rows - 1))
    assert found.tolist() == [slow_neighbours(bank.features.tolist(), i, count) for i in index.tolist()]


def test_chunks_change_nothing(monkeypatch):
    bank, index = random_bank(50, 1), torch.arange(50)
    whole = bank.neighbours(index, 5)
    monkeypatch.setattr(bank_module, "CHUNK", 7)
    assert torch.equal(bank.neighbours(index, 5), whole)


def test_update_is_seen_by_the_next_look_up_and_touches_only_its_rows():
    bank = random_bank(6, 2)
    before_features, before_scores = bank.features.clone(), bank.scores.clone()
    index = torch.tensor([4, 1])
    features = before_features[[0, 0]].clone().requires_grad_(True)  # rows 4 and 1 move onto row 0
    bank.update(index, features, torch.eye(3, dtype=torch.float64)[:2])
    assert set(bank.neighbours(torch.tensor([0]), 2)[0].tolist()) == {1, 4}
    assert bank.scores[4].tolist() == [1, 0, 0]
    rest = [0, 2, 3, 5]
    assert torch.equal(bank.features[rest], before_features[rest])
    assert torch.equal(bank.scores[rest], before_scores[rest])
    assert not bank.features.requires_grad


def test_an_utterance_is_never_its_own_neighbour_even_among_copies():
    bank = Bank(torch.ones(5, 3), torch.ones(5, 2) / 2)
    for row, near in enumerate(bank.neighbours(torch.arange(5), 4).tolist()):
        assert sorted(near) == [k for k in range(5) if k != row]


def test_features_have_length_one_and_the_input_is_not_changed():
    raw = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    bank = Bank(raw, scores)
    assert bank.features[0].tolist() == pytest.approx([0.6, 0.8])
    assert bank.features.isfinite().all()
    bank.update(torch.tensor([0]), torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    assert raw[0].tolist() == [3.0, 4.0]
    assert scores[0].tolist() == [1.0, 0.0]
