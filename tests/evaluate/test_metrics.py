"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from fedser.evaluate import metrics

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_scores_agree_with_sklearn(pairs: list[tuple[int, int]]) -> None:
    true, predicted = (list(column) for column in zip(*pairs, strict=True))
    present = sorted(set(true))
    options = {"labels": present, "average": "macro", "zero_division": 0}
    assert metrics.uar(true, predicted) == pytest.approx(recall_score(true, predicted, **options))
    assert metrics.macro_f1(true, predicted) == pytest.approx(f1_score(true, predicted, **options))
    assert metrics.war(true, predicted) == pytest.approx(accuracy_score(true, predicted))
    expected = confusion_matrix(true, predicted, labels=range(5))
    assert (metrics.confusion(true, predicted, 5) == expected).all()


def test_uar_weighs_a_rare_class_like_a_frequent_one() -> None:
    true = [0] * 9 + [1]
    predicted = [0] * 10
    assert metrics.uar(true, predicted) == pytest.approx(0.5)
    assert metrics.war(true, predicted) == pytest.approx(0.9)


def test_recall_is_nan_for_a_class_that_does_not_occur() -> None:
    recall = metrics.recall([0, 0, 2], [0, 2, 2], 3)
    assert recall[0] == 0.5
    assert math.isnan(recall[1])
    assert recall[2] == 1.0


def test_unknown_answers_are_wrong_and_in_no_column() -> None:
    true, predicted = [0, 0, 1], [0, -1, -1]
    assert metrics.uar(true, predicted) == pytest.approx(0.25)
    assert metrics.confusion(true, predicted, 2).tolist() == [[1, 0], [0, 0]]


def test_ece_by_hand() -> None:
    # Two bins of width a half: confidences .6 and .8 (one hit of two), so |.7 − .5|.
    probabilities = torch.tensor([[0.6, 0.4], [0.2, 0.8]])
    assert metrics.ece(probabilities, [0, 0], bins=2) == pytest.approx(0.2)
    certain = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.ece(certain, [0, 1]) == 0.0


def test_reliability_counts_every_utterance() -> None:
    probabilities = torch.softmax(torch.randn(200, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    rows = metrics.reliability(probabilities, np.zeros(200, dtype=np.int64))
    assert sum(count for _, _, count in rows) == 200


def test_nothing_to_score_is_nan_not_an_error() -> None:
    assert math.isnan(metrics.uar([], []))
    assert math.isnan(metrics.war([], []))
    assert math.isnan(metrics.macro_f1([], []))
    assert math.isnan(metrics.ece(torch.zeros(0, 3), []))


@pytest.mark.parametrize(("true", "predicted"), [([0, 1], [0]), ([-1], [0])])
def test_labels_that_do_not_fit_are_refused(true: list[int], predicted: list[int]) -> None:
    with pytest.raises(ValueError, match="label"):
        metrics.uar(true, predicted)
