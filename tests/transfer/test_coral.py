"""The CORAL loss against numpy and a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedser.models import EmotionClassifier, ModelSettings
from fedser.transfer import Batch, Part, make
from fedser.transfer.coral import correlation_distance, covariance


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_covariance_is_numpys():
    x = rows(7, 0) + 5
    assert np.allclose(covariance(x).numpy(), np.cov(x.numpy(), rowvar=False))


def test_the_distance_equals_the_loop():
    source, target = rows(7, 1), 2 * rows(5, 2)

    def slow(x, i, j):
        first, second = [row[i] for row in x], [row[j] for row in x]
        middle = sum(first) / len(x), sum(second) / len(x)
        return sum((a - middle[0]) * (b - middle[1]) for a, b in zip(first, second, strict=True)) / (len(x) - 1)

    s, t = source.tolist(), target.tolist()
    total = sum((slow(s, i, j) - slow(t, i, j)) ** 2 for i in range(4) for j in range(4))
    assert float(correlation_distance(source, target)) == pytest.approx(total / (4 * 16))


def test_a_shifted_copy_is_at_no_distance_and_a_stretched_one_is():
    x = rows(9, 3)
    assert float(correlation_distance(x, x + 3)) == pytest.approx(0.0, abs=1e-20)
    assert float(correlation_distance(x, 2 * x)) > 0.1


def test_the_reference_weighs_it():
    model = EmotionClassifier(ModelSettings(hidden=4, bottleneck=4), (5,), ("a", "b"))
    parts = [Part(torch.zeros(6, 4), rows(6, seed), torch.zeros(6, 2)) for seed in (1, 2)]
    loss = make("coral", model, {"weight": 3.0}, seed=0).loss(Batch(*parts, torch.zeros(6).long(), 0.0))
    assert float(loss["correlation"]) == pytest.approx(3 * float(correlation_distance(rows(6, 1), rows(6, 2))))
