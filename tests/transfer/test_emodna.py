"""Adaptive thresholds by hand; decoupling, class and corpus level against loops."""

from __future__ import annotations

import math

import pytest
import torch

from fedser.models import EmotionClassifier, ModelSettings
from fedser.transfer import Batch, Part, make
from fedser.transfer.dann import reversal_strength
from fedser.transfer.emodna import ClassThresholds, class_alignment, decoupling, mean_discrepancy


def unit(count: int, seed: int, width: int = 3) -> torch.Tensor:
    drawn = torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn / drawn.norm(dim=1, keepdim=True)


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_each_class_has_its_own_threshold_that_follows_its_confidence():
    thresholds = ClassThresholds(3, momentum=0.75)
    p = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.3, 0.2], [0.2, 0.4, 0.4], [0.1, 0.6, 0.3]], dtype=torch.float64)
    passed, labels = thresholds.select(p)
    assert labels.tolist() == [0, 0, 1, 1]
    # Means 0.7 and 0.5: of each class the more confident one passes, though 0.6 lies below the other's mean.
    assert thresholds.values.tolist() == pytest.approx([0.7, 0.5, 0.0])
    assert passed.tolist() == [True, False, False, True]
    passed, labels = thresholds.select(torch.tensor([[0.3, 0.3, 0.4], [0.8, 0.1, 0.1]]))
    assert thresholds.values.tolist() == pytest.approx([0.75 * 0.7 + 0.25 * 0.8, 0.5, 0.4])
    assert (passed.tolist(), labels.tolist()) == ([True, True], [2, 0])


def test_the_decoupling_loss_equals_the_loop():
    emotion, corpora, tau = unit(5, 0), [unit(2, 1), unit(3, 2)], 0.4
    labels = torch.tensor([0, 1, 0, 2, 1])
    vectors = [*emotion.tolist(), *corpora[0].tolist(), *corpora[1].tolist()]
    kinds = [("class", c) for c in labels.tolist()] + [("corpus", 0)] * 2 + [("corpus", 1)] * 3
    each = []
    for i, vector in enumerate(vectors):
        partners = [j for j in range(len(vectors)) if j != i and kinds[j] == kinds[i]]
        if partners:
            below = sum(math.exp(dot(vector, vectors[k]) / tau) for k in range(len(vectors)) if k != i)
            each.append(
                -sum(math.log(math.exp(dot(vector, vectors[j]) / tau) / below) for j in partners) / len(partners)
            )
    assert float(decoupling(emotion, labels, corpora, tau)) == pytest.approx(sum(each) / len(each))


def test_decoupling_is_smaller_where_emotion_and_corpus_parts_are_orthogonal():
    emotion = torch.eye(4)[[0, 0, 1, 1]]
    labels = torch.tensor([0, 0, 1, 1])
    apart = decoupling(emotion, labels, [torch.eye(4)[[2, 2]], torch.eye(4)[[3, 3]]], 0.1)
    mixed = decoupling(emotion, labels, [torch.eye(4)[[0, 0]], torch.eye(4)[[1, 1]]], 0.1)
    assert float(apart) < 0.01 < float(mixed)


def test_the_class_alignment_equals_the_loop_and_leaves_absent_classes_out():
    source, target, tau = unit(5, 3), unit(4, 4), 0.3
    y, labels = [0, 2, 2, 0, 2], [2, 1, 0, 2]  # class 1 has no source utterance in the batch
    centres = {}
    for c in (0, 2):
        middle = [sum(f[k] for f, own in zip(source.tolist(), y, strict=True) if own == c) for k in range(3)]
        centres[c] = [value / math.hypot(*middle) for value in middle]
    each = []
    for f, c in zip(target.tolist(), labels, strict=True):
        if c in centres:
            below = sum(math.exp(dot(f, centre) / tau) for centre in centres.values())
            each.append(-math.log(math.exp(dot(f, centres[c]) / tau) / below))
    found = class_alignment(source, torch.tensor(y), target, torch.tensor(labels), tau)
    assert float(found) == pytest.approx(sum(each) / 3)


def test_the_class_alignment_without_a_confident_utterance_is_a_zero_with_a_gradient():
    target = unit(2, 5).requires_grad_()
    found = class_alignment(unit(3, 6), torch.tensor([0, 0, 1]), target, torch.tensor([2, 2]), 0.1)
    found.backward()
    assert found.item() == 0.0
    assert torch.equal(target.grad, torch.zeros_like(target))


def test_the_discrepancy_equals_the_loop():
    source, target = unit(4, 7), unit(3, 8) + 0.5
    rows = [*source.tolist(), *target.tolist()]

    def squared(a, b):
        return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))

    middle = sum(squared(a, b) for a in rows for b in rows) / 49

    def kernel(a, b):
        return sum(math.exp(-squared(a, b) / (s * middle)) for s in (0.25, 0.5, 1, 2, 4)) / 5

    def mean(left, right):
        return sum(kernel(a, b) for a in left for b in right) / (len(left) * len(right))

    s, t = source.tolist(), target.tolist()
    expected = mean(s, s) + mean(t, t) - 2 * mean(s, t)
    assert float(mean_discrepancy(source, target)) == pytest.approx(expected)
    assert float(mean_discrepancy(source, source.clone())) == pytest.approx(0.0, abs=1e-12)


def test_the_discrepancy_of_equal_points_has_a_finite_gradient():
    same = torch.ones(3, 2, requires_grad=True)
    mean_discrepancy(same, torch.ones(2, 2)).backward()
    assert bool(same.grad.isfinite().all())


def test_the_parts_are_weighted_and_those_with_pseudo_labels_start_from_nothing():
    model = EmotionClassifier(ModelSettings(hidden=4, bottleneck=3), (5,), ("a", "b", "c"))
    weights = {"decoupling": 0.5, "class_level": 2.0, "corpus_level": 3.0, "temperature": 0.2}
    rng = torch.Generator().manual_seed(0)
    parts = [
        Part(torch.randn(6, 4, generator=rng), torch.randn(6, 3, generator=rng), 3 * torch.randn(6, 3, generator=rng))
        for _ in range(2)
    ]
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    early = make("emodna", model, weights, seed=0).loss(Batch(*parts, y, 0.0))
    late = make("emodna", model, weights, seed=0).loss(Batch(*parts, y, 0.4))
    assert early["decoupling"].item() == early["class_level"].item() == 0.0
    passed, labels = ClassThresholds(3, 0.9).select(parts[1].logits.softmax(dim=1))
    f_s, f_t = (part.b / part.b.norm(dim=1, keepdim=True) for part in parts)
    aligned = class_alignment(f_s, y, f_t[passed], labels[passed], 0.2)
    assert late["class_level"].item() == pytest.approx(reversal_strength(0.4) * 2 * float(aligned))
    assert (
        float(late["corpus_level"])
        == float(early["corpus_level"])
        == pytest.approx(3 * float(mean_discrepancy(f_s, f_t)))
    )
    assert late["decoupling"].item() > 0
