"""The sparse weights against scikit-learn's coordinate descent, the loss against a loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso

from fedser.models import EmotionClassifier, ModelSettings
from fedser.transfer import Batch, Part, make
from fedser.transfer.didan import reconstruction, sparse_weights


def rows(count: int, width: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / width**0.5


def objective(source, target, weights, sparsity):
    left, size = reconstruction(source, target, weights)
    return float(left + sparsity * size)


@pytest.mark.parametrize("sparsity", [0.02, 0.2, 0.6])
@pytest.mark.parametrize(("sources", "width"), [(8, 16), (24, 10)])  # fewer and more source features than dimensions
def test_the_weights_are_the_lassos(sources, width, sparsity):
    source, target = rows(sources, width, 0), rows(5, width, 1)
    # Scikit-learn minimises ‖y − Xw‖²/(2n) + α‖w‖₁ with n the width here.
    oracle = Lasso(alpha=sparsity / (2 * width), fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = np.stack([oracle.fit(source.numpy().T, one.numpy()).coef_ for one in target])
    found = sparse_weights(source, target, sparsity, steps=5000)
    assert np.allclose(found.numpy(), expected, atol=1e-5)
    assert np.array_equal(found.numpy() == 0, expected == 0)


def test_a_few_steps_come_close_and_never_do_worse_than_nothing():
    source, target = rows(32, 64, 0), rows(16, 64, 1)
    best = objective(source, target, sparse_weights(source, target, 0.1, 5000), 0.1)
    nothing = objective(source, target, torch.zeros(16, 32, dtype=torch.float64), 0.1)
    gaps = [objective(source, target, sparse_weights(source, target, 0.1, n), 0.1) - best for n in (1, 5, 20)]
    assert nothing - best > gaps[0] > gaps[1] > gaps[2] >= 0
    assert gaps[2] < 0.01 * (nothing - best)


def test_without_a_penalty_a_source_that_spans_the_space_leaves_nothing_over():
    source, target = rows(12, 6, 0), rows(4, 6, 1)
    left, _ = reconstruction(source, target, sparse_weights(source, target, 0.0, 5000))
    assert float(left) == pytest.approx(0.0, abs=1e-10)


def test_a_silent_source_gets_no_weight():
    weights = sparse_weights(torch.zeros(3, 4), torch.ones(2, 4), 0.1, 5)
    assert torch.equal(weights, torch.zeros(2, 3))


def test_the_loss_equals_the_loop_and_reaches_both_corpora_but_not_the_weights():
    model = EmotionClassifier(ModelSettings(hidden=4, bottleneck=9), (5,), ("a", "b"))
    reference = make("didan", model, {"weight": 2.0, "sparsity": 0.1, "steps": 7}, seed=0)
    b = [3 * rows(6, 9, seed).requires_grad_() for seed in (1, 2)]
    for own in b:
        own.retain_grad()
    parts = [Part(torch.zeros(6, 4), own, torch.zeros(6, 2)) for own in b]
    found = reference.loss(Batch(parts[0], parts[1], torch.zeros(6).long(), 0.0))
    z_s, z_t = (own.detach() / 3 for own in b)  # √9
    weights = sparse_weights(z_s, z_t, 0.1, 7)
    total = 0.0
    for j in range(6):
        rebuilt = [sum(float(weights[j, i]) * float(z_s[i, k]) for i in range(6)) for k in range(9)]
        total += sum((float(z_t[j, k]) - rebuilt[k]) ** 2 for k in range(9)) / 6
    assert found["reconstruction"].item() == pytest.approx(2 * total)
    assert float(found["sparsity"]) == pytest.approx(2 * 0.1 * float(weights.abs().sum()) / 6)
    assert not found["sparsity"].requires_grad
    found["reconstruction"].backward()
    left = z_t - weights @ z_s
    assert torch.allclose(b[1].grad, 2 * 2 * left / 6 / 3)
    assert torch.allclose(b[0].grad, -2 * 2 * weights.T @ left / 6 / 3)
