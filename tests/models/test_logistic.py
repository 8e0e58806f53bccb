"""Logistic regression as tensors against scikit-learn's own probabilities."""

from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fedser import compute
from fedser.models import fit_logistic

CLASSES = ("anger", "calm", "fear", "sadness")


@pytest.mark.parametrize("found", [(0, 1, 2, 3), (0, 2, 3), (1, 3)])
def test_probabilities_are_scikit_learns(found):
    """Also with classes missing, and with two classes, of which scikit-learn keeps one row."""
    x = torch.randn(40, 5, generator=compute.generator("x"))
    y = torch.tensor(found)[torch.arange(40) % len(found)]
    x += 0.5 * y.unsqueeze(1)
    linear = fit_logistic(x, y, CLASSES, c=0.1)
    oracle = LogisticRegression(C=0.1, class_weight="balanced", max_iter=1000).fit(x.double().numpy(), y.numpy())
    expected = torch.zeros(40, 4)
    expected[:, list(found)] = torch.from_numpy(oracle.predict_proba(x.double().numpy())).float()
    torch.testing.assert_close(linear(x).softmax(dim=1), expected, atol=1e-4, rtol=1e-4)
    assert linear.classes == CLASSES
