"""Each score against a slow loop or a calculation by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedser import compute
from fedser.adapt import scores
from fedser.models import EmotionClassifier, ModelSettings

N, C, D = 23, 4, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=compute.generator("scores", seed))


@pytest.fixture
def p() -> Tensor:
    return (2 * draw(N, C)).softmax(dim=1)


@pytest.fixture
def b() -> Tensor:
    return draw(N, D, seed=1)


def entropy(shares: list[float]) -> float:
    return -sum(s * math.log(s) for s in shares if s > 0)


def test_entropy_and_mutual_information(p: Tensor) -> None:
    rows = [entropy(row) for row in p.tolist()]
    whole = entropy([sum(column) / N for column in zip(*p.tolist(), strict=True)])
    assert scores.entropy(p) == pytest.approx(sum(rows) / N, abs=1e-6)
    assert scores.mutual_information(p) == pytest.approx(whole - sum(rows) / N, abs=1e-6)
    certain = torch.eye(C)
    assert scores.entropy(certain) == 0
    assert scores.mutual_information(certain) == pytest.approx(math.log(C))
    assert scores.mutual_information(certain[:1].repeat(5, 1)) == pytest.approx(0)


def test_soft_neighbourhood_density(p: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    total = 0.0
    for i in range(N):
        near = [float(torch.dot(p[i], p[j]) / (p[i].norm() * p[j].norm())) / 0.05 for j in range(N) if j != i]
        weights = [math.exp(s - max(near)) for s in near]
        total += entropy([w / sum(weights) for w in weights])
    assert scores.soft_neighbourhood_density(p) == pytest.approx(total / N, abs=1e-4)
    monkeypatch.setattr(scores, "CHUNK", 5)
    assert scores.soft_neighbourhood_density(p) == pytest.approx(total / N, abs=1e-4)
    assert scores.soft_neighbourhood_density(p[:1].repeat(9, 1)) == pytest.approx(math.log(8), abs=1e-5)
    assert scores.soft_neighbourhood_density(p[:1]) == 0


def test_prototype_margin(p: Tensor, b: Tensor) -> None:
    f = [row / row.norm() for row in b]
    answers = p.argmax(dim=1).tolist()
    means = {a: torch.stack([f[i] for i in range(N) if answers[i] == a]).mean(dim=0) for a in set(answers)}
    cosine = [{a: float(torch.dot(f[i], m) / m.norm()) for a, m in means.items()} for i in range(N)]
    by_hand = [c[a] - max(v for other, v in c.items() if other != a) for c, a in zip(cosine, answers, strict=True)]
    assert scores.prototype_margin(b, p) == pytest.approx(sum(by_hand) / N, abs=1e-5)
    assert scores.prototype_margin(b, p[:1].repeat(N, 1)) == 0


def test_predictability_is_what_refitting_without_each_utterance_gives(p: Tensor, b: Tensor) -> None:
    """The oracle solves one ridge regression an utterance, in the features' own space."""
    x = b.double() - b.double().mean(dim=0)
    y = functional.one_hot(p.argmax(dim=1), C).double()
    y = y - y.mean(dim=0)
    penalty = 3.0 * float(x.square().sum(dim=1).mean()) * torch.eye(D, dtype=torch.double)
    left = 0.0
    for i in range(N):
        rest = [j for j in range(N) if j != i]
        weights = torch.linalg.solve(x[rest].T @ x[rest] + penalty, x[rest].T @ y[rest])
        left += float((y[i] - x[i] @ weights).square().sum())
    expected = 1 - left / float(y.square().sum())
    assert scores.predictability(p, scores.ridge_hat(b, 3.0)) == pytest.approx(expected, abs=1e-9)


def test_predictability_rewards_structure_and_not_shares(b: Tensor) -> None:
    hat = scores.ridge_hat(b, 0.1)
    along = functional.one_hot((b[:, 0] > 0).long(), C).float()
    chance = functional.one_hot(torch.arange(N) % 2, C).float()
    assert scores.predictability(along, hat) > 0.4 > 0 > scores.predictability(chance, hat)
    assert scores.predictability(along[:1].repeat(N, 1), hat) == 0
    scaled = scores.ridge_hat(7 * b + 3, 0.1)
    assert torch.allclose(hat, scaled)


def test_agreement_and_change(p: Tensor) -> None:
    q = p.clone()
    q[:5] = q[:5].roll(1, dims=1)
    assert scores.agreement(p, q) == pytest.approx((N - 5) / N)
    assert scores.changed(q, p) == pytest.approx(5 / N)
    assert scores.view_agreement(p, [p, q]) == pytest.approx((1 + (N - 5) / N) / 2)
    assert scores.view_agreement(p, []) == 1


@pytest.mark.parametrize("chunk", [4, 100])
def test_neighbour_agreement(p: Tensor, b: Tensor, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "CHUNK", chunk)
    same = 0
    for i in range(N):
        cosine = [-2.0 if j == i else float(functional.cosine_similarity(b[i], b[j], dim=0)) for j in range(N)]
        near = sorted(range(N), key=lambda j: -cosine[j])[:3]
        told = torch.stack([p[j] for j in near]).mean(dim=0)
        same += int(told.argmax() == p[i].argmax())
    assert scores.neighbour_agreement(p, b, 3) == pytest.approx(same / N)
    assert scores.neighbour_agreement(p[:1], b[:1]) == 1


def test_balance() -> None:
    assert scores.balance(torch.eye(C)) == pytest.approx(1)
    assert scores.balance(torch.eye(C)[:1].repeat(6, 1)) == 0
    thrice = torch.eye(C)[[0, 0, 0, 1]]
    assert scores.balance(thrice) == pytest.approx(entropy([0.75, 0.25]) / math.log(C))
    assert scores.balance(torch.ones(3, 1)) == 1


def test_distance_of_the_source_itself_and_of_something_else() -> None:
    z = draw(200, 50)
    assert scores.distance(z) == pytest.approx(0.67, abs=0.05)
    assert scores.distance(z + 3) == pytest.approx(3, abs=0.2)
    assert scores.distance(torch.full((3, 2, 4), -2.0)) == 2


@pytest.fixture
def classifier() -> Callable[[str], EmotionClassifier]:
    def build(norm: str) -> EmotionClassifier:
        settings = ModelSettings.model_validate({"hidden": 8, "bottleneck": 4, "norm": norm})
        return EmotionClassifier(settings, (D,), tuple("abcd")).eval()

    return build


def test_variance_shift(classifier: Callable[[str], EmotionClassifier], b: Tensor) -> None:
    model = classifier("batch")
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm1d))
    first = next(module for module in model.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        summed = first(b)
    assert norm.running_var is not None
    norm.running_var.copy_(summed.var(dim=0, correction=0))
    assert scores.variance_shift(model, b) == pytest.approx(0, abs=1e-5)
    assert scores.variance_shift(model, 2 * b) == pytest.approx(math.log(4), abs=0.01)  # bias has no variance
    assert not norm._forward_pre_hooks
    assert scores.variance_shift(classifier("layer"), b) == 0
    assert scores.variance_shift(model, b[:1]) == 0
