"""The attacker's classifier against ridge regression written out; what it must find and what it must not."""

from __future__ import annotations

import numpy as np
import torch

from fedser.attacks import ridge
from fedser.compute import generator


def rows(n: int, p: int, seed: int) -> torch.Tensor:
    return torch.randn(n, p, generator=generator("test ridge", seed), dtype=torch.float64)


def test_scores_are_those_of_ridge_regression_in_feature_space() -> None:
    x, told, targets = rows(12, 5, 1), rows(4, 5, 2) + 1.0, rows(12, 2, 3)
    both = torch.cat([x, told])
    answers = ridge.scores(both @ both.T, targets, range(12), range(12, 16))
    centre, middle = x.mean(dim=0), targets.mean(dim=0)
    c = x - centre
    scale = (c @ c.T).diagonal().mean()
    for penalty, answer in zip(ridge.PENALTIES, answers, strict=True):
        weights = torch.linalg.solve(c.T @ c / scale + penalty * torch.eye(5), c.T @ (targets - middle) / scale)
        assert torch.allclose(answer, (told - centre) @ weights + middle, atol=1e-6)


def test_rows_left_out_are_scored_by_the_others_alone() -> None:
    x, targets = rows(20, 6, 4), rows(20, 1, 5)
    gram = x @ x.T
    whole = ridge.left_out(gram, targets, range(20), range(20), folds=5)
    others = [row for row in range(20) if row % 5 != 2]
    mine = [row for row in range(20) if row % 5 == 2]
    assert torch.allclose(whole[:, mine], ridge.scores(gram, targets[others], others, mine))


def labelled(signal: float) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    labels = torch.arange(160) % 2
    x = rows(160, 40, 6)
    y = x.clone()
    y[:, 0] += signal * (2.0 * labels - 1.0)
    return {"without": x @ x.T, "with": y @ y.T}, labels


def test_it_finds_the_view_that_tells_and_stays_at_chance_where_none_does() -> None:
    views, labels = labelled(4.0)
    told = ridge.attack(views, labels[:80], [n // 8 % 4 for n in range(80)], [range(80)], range(80, 160))
    assert told.view == "with"
    assert float((told.classes == labels[80:]).double().mean()) > 0.95
    views, labels = labelled(0.0)
    told = ridge.attack(views, labels[:80], [n // 8 % 4 for n in range(80)], [range(80)], range(80, 160))
    assert abs(float((told.classes == labels[80:]).double().mean()) - 0.5) < 0.2


def test_the_interval_is_about_that_of_a_binomial() -> None:
    labels = torch.arange(400) % 2
    answers = labels.clone()
    answers[np.random.default_rng(0).permutation(400)[:120]] ^= 1
    low, high = ridge.interval(labels, answers, 0)
    assert low < 0.7 < high
    assert abs((high - low) - 2 * 1.96 * (0.7 * 0.3 / 400) ** 0.5) < 0.02
