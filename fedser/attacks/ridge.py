"""The attacker's classifier: kernel ridge regression, whose kernel and penalty he chooses on sites of his own.

Updates have far more values than there are sites, so everything happens in the sites' inner products (Saunders,
Gammerman and Vovk 1998); a linear kernel, since many small differences that add up are what updates differ in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-4, 3))
_RESAMPLES = 2000


@dataclass(frozen=True)
class Answers:
    """What the attacker answers for the sites that he attacks.

    Attributes:
        view: the kernel that he chose.
        validation: correlation of scores and classes on his own sites, those of a group told by those of the others.
        scores: of each class at each attacked site [T, K].
    """

    view: str
    validation: float
    scores: Tensor

    @property
    def classes(self) -> Tensor:
        """The class of the largest score, int64 [T]."""
        return self.scores.argmax(dim=1)


def attack(
    views: Mapping[str, Tensor],
    labels: Tensor,
    groups: Sequence[int],
    train: Sequence[Sequence[int]],
    test: Sequence[int],
) -> Answers:
    """Choose view, training rows and penalty on the attacker's own sites, and answer for the others.

    Args:
        views: inner products of all rows, float [n, n], by name.
        labels: classes of the rows to train on, int64 [S].
        groups: [S]; rows of one group share recordings, and never tell each other's class in the choice.
        train: lists of S row numbers that stand for the same S sites, such as without and with noise; the last
            list is what the attacked sites' rows look like.
        test: row numbers of the attacked sites.
    """
    classes = int(labels.max()) + 1
    targets = 2.0 * torch.nn.functional.one_hot(labels, classes).double() - 1.0
    member, looks = torch.tensor(groups), list(train[-1])
    found: tuple[float, str, Sequence[int], float] = (-2.0, "", train[-1], PENALTIES[0])
    for name, gram in views.items():
        for rows in train:
            guessed = torch.zeros(len(PENALTIES), len(labels), classes, dtype=torch.float64)
            for group in sorted(set(groups)):
                own = member == group
                learn = [row for row, out in zip(rows, own.tolist(), strict=True) if not out]
                told = [row for row, out in zip(looks, own.tolist(), strict=True) if out]
                guessed[:, own] = scores(gram, targets[~own], learn, told)
            for penalty, answer in zip(PENALTIES, guessed, strict=True):
                reached = agreement(targets, answer)
                if reached > found[0]:
                    found = (reached, name, rows, penalty)
    reached, name, rows, penalty = found
    answer = scores(views[name], targets, rows, test)[PENALTIES.index(penalty)]
    return Answers(name, reached, answer)


def agreement(targets: Tensor, answers: Tensor) -> float:
    """Correlation of scores [n, K] with their targets [n, K], over all classes: finer than counting right answers."""
    both = torch.stack([targets.flatten(), answers.flatten()])
    return float(torch.corrcoef(both)[0, 1].nan_to_num(-1.0))


def scores(gram: Tensor, targets: Tensor, train: Sequence[int], told: Sequence[int]) -> Tensor:
    """Scores [penalties, told, K] of a ridge regression in feature space, centred on the training rows.

    Args:
        gram: inner products [n, n].
        targets: of the training rows [S, K].
        train, told: row numbers.
    """
    rows, others = list(train), list(told)
    inner = gram[rows][:, rows].double()
    cross = gram[others][:, rows].double()
    middle = inner.mean()
    cross = cross - cross.mean(dim=1, keepdim=True) - inner.mean(dim=0, keepdim=True) + middle
    inner = inner - inner.mean(dim=0, keepdim=True) - inner.mean(dim=1, keepdim=True) + middle
    scale = inner.diagonal().mean().clamp_min(1e-30)
    values, vectors = torch.linalg.eigh(inner / scale)
    centre = targets.mean(dim=0, keepdim=True)
    along = vectors.T @ (targets - centre)
    onto = (cross / scale) @ vectors
    fits = [onto @ (along / (values.clamp_min(0.0) + penalty)[:, None]) + centre for penalty in PENALTIES]
    return torch.stack(fits)


def left_out(gram: Tensor, targets: Tensor, train: Sequence[int], told: Sequence[int], folds: int = 10) -> Tensor:
    """Scores [penalties, S, K] of rows that stand for the training rows' sites, each by the other folds' rows.

    Args:
        gram: inner products [n, n].
        targets: of the S sites [S, K].
        train: row numbers to learn from, one a site.
        told: row numbers to score, one a site.
    """
    fold = torch.arange(len(targets)) % folds
    found = torch.zeros(len(PENALTIES), *targets.shape, dtype=torch.float64)
    for number in range(folds):
        out = fold == number
        learn = [row for row, hidden in zip(train, out.tolist(), strict=True) if not hidden]
        found[:, out] = scores(gram, targets[~out], learn, [told[row] for row in out.nonzero()[:, 0].tolist()])
    return found


def interval(labels: Tensor, answers: Tensor, seed: int) -> tuple[float, float]:
    """95 % of the UAR by bootstrap over sites."""
    member = torch.nn.functional.one_hot(labels).double().numpy()
    right = member * (labels == answers).double().numpy()[:, None]
    count = len(labels)
    drawn = np.random.default_rng([seed, 17]).multinomial(count, [1 / count] * count, size=_RESAMPLES)
    totals = drawn @ member
    recall = np.divide(drawn @ right, totals, out=np.zeros_like(totals), where=totals > 0)
    reached = recall.sum(axis=1) / np.maximum((totals > 0).sum(axis=1), 1)
    low, high = np.quantile(reached, (0.025, 0.975))
    return float(low), float(high)
