"""SHOT's centroids and losses, and AaD's loss, against loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser import compute
from fedser.adapt import Bank, Batch, Schedule, adapt, make
from fedser.adapt.shot import centroid_labels
from fedser.models import EmotionClassifier, ModelSettings, initialise


def slow_centroid_labels(b: list[list[float]], p: list[list[float]]) -> list[int]:
    def unit(v):
        return [x / math.hypot(*v) for x in v]

    def best(row):
        return row.index(max(row))

    features = [unit([*row, 1.0]) for row in b]
    classes = range(len(p[0]))
    weights, seen = p, {best(row) for row in p}
    for _ in range(2):
        labels = []
        centroids = {
            c: unit([sum(w[c] * f[d] for w, f in zip(weights, features, strict=True)) for d in range(len(features[0]))])
            for c in seen
        }
        for f in features:
            cosine = {c: sum(x * y for x, y in zip(f, centroids[c], strict=True)) for c in sorted(seen)}
            labels.append(max(cosine, key=lambda c, cosine=cosine: cosine[c]))
        weights = [[float(label == c) for c in classes] for label in labels]
        seen = set(labels)
    return labels


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 12), classes=st.integers(1, 4))
def test_centroid_labels_equal_the_loop(seed, rows, classes):
    rng = compute.generator("shot", seed)
    b = torch.randn(rows, 3, generator=rng, dtype=torch.float64)
    p = torch.randn(rows, classes, generator=rng, dtype=torch.float64).mul(2).softmax(dim=1)
    assert centroid_labels(b, p).tolist() == slow_centroid_labels(b.tolist(), p.tolist())


def batch(targets: torch.Tensor | None = None) -> Batch:
    rng = compute.generator("batch")
    b = torch.randn(9, 4, generator=rng, dtype=torch.float64)
    logits = torch.randn(9, 3, generator=rng, dtype=torch.float64)
    p = logits.softmax(dim=1)
    index = torch.tensor([7, 2, 5, 0])
    f = b / b.norm(dim=1, keepdim=True)
    return Batch(index, b[index], f[index], p[index], logits[index], Bank(b, p), targets, 0.3)


def test_shot_loss_equals_the_loop():
    labels = [0, 2, 2, 1]
    seen = batch(torch.tensor(labels))
    p = seen.p.tolist()
    mean = [sum(row[c] for row in p) / 4 for c in range(3)]
    parts = make("shot").loss(seen)
    assert parts["entropy_loss"].item() == pytest.approx(-sum(v * math.log(v) for row in p for v in row) / 4)
    assert parts["diversity"].item() == pytest.approx(sum(v * math.log(v) for v in mean))
    guess = -sum(math.log(row[label]) for row, label in zip(p, labels, strict=True)) / 4
    assert parts["pseudo_label"].item() == pytest.approx(0.3 * guess)


def test_aad_loss_equals_the_loop():
    seen = batch()
    big_f, big_s, p = seen.bank.features.tolist(), seen.bank.scores.tolist(), seen.p.tolist()

    def dot(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    attraction, dispersion = 0.0, 0.0
    for here, i in enumerate(seen.index.tolist()):
        near = sorted((j for j in range(9) if j != i), key=lambda j, i=i: -dot(big_f[i], big_f[j]))[:3]
        attraction -= sum(dot(big_s[j], p[here]) for j in near) / 4
        dispersion += sum(dot(p[here], p[there]) for there in range(4) if there != here) / 4
    parts = make("aad", {"neighbours": 3, "decay": 2.0}).loss(seen)
    assert parts["attraction"].item() == pytest.approx(attraction)
    assert parts["dispersion"].item() == pytest.approx(dispersion * (1 + 10 * 0.3) ** -2.0)


@pytest.mark.parametrize("name", ["shot", "aad"])
def test_they_run_in_the_loop_with_a_masked_class(name):
    model = EmotionClassifier(ModelSettings(hidden=8, bottleneck=4), (6,), ("a", "b", "c"))
    initialise(model, compute.generator("m"))
    x = torch.randn(20, 6, generator=compute.generator("x"))
    mask = torch.tensor([True, True, False])
    adapted = adapt(model, x, make(name), Schedule(epochs=3, batch_size=8), seed=0, class_mask=mask)
    assert [entry["epoch"] for entry in adapted.history] == [0, 1, 2]
    assert all(math.isfinite(value) for entry in adapted.history for value in entry.values())
