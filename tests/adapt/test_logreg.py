"""The linear peer, as published and self-trained."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.adapt import adapt, make, probabilities
from fedser.adapt.logreg_self import confident
from fedser.errors import UsageError
from fedser.models import EmotionClassifier, LinearClassifier, ModelSettings, fit_logistic

CLASSES = ("a", "b", "c")
MODEL = EmotionClassifier(ModelSettings(hidden=8, bottleneck=4), (4,), CLASSES)
CENTRES = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])


def clusters(shift: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three clusters; the shift turns them towards each other."""
    y = torch.arange(90) % 3
    x = CENTRES[y] + shift * CENTRES[(y + 1) % 3] + torch.randn(90, 4, generator=compute.generator("c", seed))
    return x, y


def test_published_weights_are_used_as_they_are():
    x, y = clusters(0.0, 0)
    linear = fit_logistic(x, y, CLASSES)
    adapted = adapt(MODEL, x, make("logreg"), seed=0, linear=linear)
    assert adapted.steps == 0
    assert torch.equal(adapted.model(x), linear(x))
    assert adapted.model is not linear


def test_self_training_recovers_shifted_clusters():
    x, y = clusters(0.0, 0)
    linear = fit_logistic(x, y, CLASSES)
    target, truth = clusters(0.8, 1)
    before = (linear(target).argmax(dim=1) == truth).float().mean()
    adapted = adapt(MODEL, target, make("logreg_self"), seed=0, linear=linear)
    after = (adapted.model(target).argmax(dim=1) == truth).float().mean()
    assert before < 0.95
    assert after > before + 0.01


def test_self_training_equals_the_loop():
    """Five refits by hand: shares of each predicted class by the margin of the two best."""
    x, y = clusters(0.3, 2)
    linear = fit_logistic(x[:45], y[:45], CLASSES)
    expected = linear
    for turn in range(1, 6):
        rows = expected(x).softmax(dim=1).tolist()
        chosen: list[int] = []
        for label in range(3):
            mine = [i for i, row in enumerate(rows) if row.index(max(row)) == label]
            mine.sort(key=lambda i: -(max(rows[i]) - sorted(rows[i])[-2]))
            chosen += mine[: math.ceil(turn / 5 * len(mine))]
        chosen.sort()
        labels = torch.tensor([rows[i].index(max(rows[i])) for i in chosen])
        expected = fit_logistic(x[chosen].double(), labels, CLASSES, 0.01)
    adapted = adapt(MODEL, x, make("logreg_self"), seed=0, linear=linear)
    torch.testing.assert_close(adapted.model(x), expected(x))


def test_masked_classes_are_never_taught():
    x, y = clusters(0.3, 3)
    mask = torch.tensor([True, True, False])
    linear = fit_logistic(x, y, CLASSES)
    adapted = adapt(MODEL, x, make("logreg_self"), seed=0, linear=linear, class_mask=mask)
    assert set(adapted.model(x).argmax(dim=1).tolist()) == {0, 1}
    assert probabilities(adapted.model, x, class_mask=mask)[:, 2].max() == 0


def test_small_and_one_class_sites_keep_working():
    x, y = clusters(0.0, 0)
    linear = fit_logistic(x, y, CLASSES)
    for count in (2, 3):
        assert adapt(MODEL, x[:count], make("logreg_self"), seed=0, linear=linear).model(x).isfinite().all()
    alone = x[y == 1]
    assert torch.equal(adapt(MODEL, alone, make("logreg_self"), seed=0, linear=linear).model(x), linear(x))


def test_without_a_fitting_linear_classifier():
    for name in ("logreg", "logreg_self"):
        with pytest.raises(UsageError, match="no logistic regression"):
            adapt(MODEL, torch.zeros(3, 4), make(name), seed=0)
        with pytest.raises(UsageError, match="shape"):
            adapt(MODEL, torch.zeros(3, 4), make(name), seed=0, linear=LinearClassifier(5, CLASSES))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 20), classes=st.integers(1, 4), share=st.floats(0.01, 1.0))
def test_confident_takes_the_share_of_each_predicted_class(seed, rows, classes, share):
    p = torch.randn(rows, classes, generator=compute.generator("p", seed)).mul(3).softmax(dim=1)
    chosen = confident(p, share).tolist()
    assert chosen == sorted(set(chosen))
    predicted = p.argmax(dim=1).tolist()
    for label in set(predicted):
        mine = [i for i in range(rows) if predicted[i] == label]
        taken = [i for i in mine if i in chosen]
        assert len(taken) == math.ceil(share * len(mine))

        def margin(i: int) -> float:
            best = sorted(p[i].tolist())
            return best[-1] - best[-2] if classes > 1 else 0.0

        left = [i for i in mine if i not in chosen]
        if left:
            assert min(map(margin, taken)) >= max(map(margin, left)) - 1e-6
