from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from fedser.evaluate.bench.scores import auroc, by_speaker, scores


def test_auroc_is_scikit_learns_ties_included() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 6, 50).astype(float)
    positive = random.random(50) < 0.4
    assert auroc(values.tolist(), positive.tolist()) == pytest.approx(roc_auc_score(positive, values))
    assert np.isnan(auroc([0.1, 0.2], [True, True]))


def test_unknown_emotions_count_towards_their_auroc_alone() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.55, 0.45]])
    table = scores(p, torch.tensor([0, 1, 0, -1]))
    assert table["uar"] == table["war"] == 1.0
    assert table["unknown_auroc"] == 1.0  # the unknown one is the least certain
    assert scores(p, torch.tensor([0, 1, 0, 0]))["unknown_auroc"] == ""
    assert scores(p, torch.tensor([-1, -1, -1, -1]))["uar"] == ""


def test_counts_by_speaker() -> None:
    p = torch.eye(2)[[0, 1, 1, 0, 1]]
    counts = by_speaker(p, torch.tensor([0, 0, 1, -1, 1]), ["b", "b", "a", "a", None])
    assert counts == {"#4": [(1, 1, 1)], "a": [(1, 1, 1)], "b": [(0, 0, 1), (0, 1, 1)]}
