"""Membership inference by likelihood ratio: was this utterance among those of the site?

LiRA (Carlini et al. 2022, "Membership inference attacks from first principles", arXiv 2112.03570, algorithm 1 and
section VI): shadow sites with and without each utterance give two normal distributions of a score, and the attacker
answers by their likelihood ratio at the attacked site's score. Two scores are tried:

* ``alignment``: a ridge regression from the updates of the shadow sites to the membership of each utterance, every
  shadow site scored by a regression that left it out;
* ``confidence``: the paper's, log(p/(1 − p)) of the published model's answer under the model that the update makes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedser.attacks.findings import Finding, Role
from fedser.attacks.people import People, Rows
from fedser.attacks.ridge import agreement, left_out, scores
from fedser.attacks.sites import Defence
from fedser.attacks.study import Attack, Source, Views
from fedser.federation.layout import Layout, network, unpack
from fedser.federation.settle import settle

FALSE_POSITIVES = 0.01
_RESAMPLES = 1000


def pool_of(people: People, size: int, rng: np.random.Generator) -> Rows:
    """Utterances of a site's speakers, about as many as asked for: as few speakers as hold them."""
    names = people.named()
    rng.shuffle(names)
    rows: list[int] = []
    for name in names:
        rows += people.rows[name].tolist()
        if len(rows) >= size:
            break
    return rng.permutation(np.array(rows))[:size]


def members(count: int, size: int, rng: np.random.Generator) -> Tensor:
    """A random half of the pool for each of ``count`` sites, bool [count, size]."""
    drawn = np.argsort(rng.random((count, size)), axis=1) < size // 2
    return torch.from_numpy(drawn)


def infer(attack: Attack, clean: Defence, people: People, pool: Rows) -> dict[str, tuple[Tensor, Tensor]]:
    """Attack the test sites after the last round.

    Args:
        attack: the federation.
        clean: the same defence without its noise, for the attacker's own sites.
        people: whose utterances they are.
        pool: rows of the utterances [M].

    Returns:
        By score: log-likelihood ratios [T, M], and the truth, bool [T, M].
    """
    own = attack.settings.membership
    rng = np.random.default_rng([attack.settings.seed, 41])
    member = members(own.shadow + own.test, len(pool), rng)
    unit = attack.defence.policy.privacy.unit
    crowd = [attack.source.site(people, pool[row.numpy()], unit) for row in member]
    groups = [0] * own.shadow + [1] * own.test
    views, confidence = Views(attack.plan), torch.zeros(0)
    whole = attack.source.site(people, pool, unit).x
    for heard in attack.overhear(clean, crowd, groups, own.shadow, rng):
        views.add(heard)
        if heard.round == attack.rounds:
            flats, joint = heard.flats[: len(crowd)], attack.joint[-1]
            confidence = confidences(attack.source, joint, flats, attack.plan.layout, whole)
    known, truth = member[: own.shadow], member[own.shadow :]
    mine, theirs = _alignment(views, known, attack.training(own.shadow, len(crowd)), own.shadow, len(crowd))
    return {
        "alignment": (likelihood_ratio(mine, known, theirs), truth),
        "confidence": (likelihood_ratio(confidence[: own.shadow], known, confidence[own.shadow :]), truth),
    }


def _alignment(
    views: Views, known: Tensor, train: Sequence[Sequence[int]], shadow: int, total: int
) -> tuple[Tensor, Tensor]:
    """Scores of the shadow sites, each left out of what scores it [S, M], and of the attacked ones [T, M]."""
    targets = 2.0 * known.double() - 1.0
    looks, told = list(range(shadow)), list(range(shadow, total))
    best, found = -2.0, (torch.zeros(0), torch.zeros(0))
    for gram in views.now().values():
        for rows in train:
            for place, mine in enumerate(left_out(gram, targets, rows, looks)):
                reached = agreement(targets, mine)
                if reached > best:
                    best, found = reached, (mine, scores(gram, targets, rows, told)[place])
    return found


@torch.no_grad()
def confidences(source: Source, joint: Tensor, flats: Tensor, layout: Layout, x: Tensor) -> Tensor:
    """log(p/(1 − p)) of the published answers, under the model that each update makes, double [n, M].

    Args:
        source: the published model; its answer for each utterance is the class that is looked at.
        joint: the tensors before the round [P].
        flats: updates [n, P].
        layout: of both.
        x: the pool's features [M, D], normalised by the attacker.
    """
    answers = source.model(x).argmax(dim=1)
    model, found = copy.deepcopy(source.model), []
    for flat in flats:
        model.load_state_dict({**model.state_dict(), **network(unpack(joint + flat, layout))})
        settle(model, x)
        logits = model.eval()(x).double()
        own = logits.gather(1, answers[:, None])[:, 0]
        others = logits.masked_fill(functional.one_hot(answers, logits.shape[1]).bool(), -torch.inf)
        found.append(own - others.logsumexp(dim=1))
    return torch.stack(found).nan_to_num(0.0)


def likelihood_ratio(mine: Tensor, member: Tensor, theirs: Tensor) -> Tensor:
    """log p(score | in) − log p(score | out), of normals fitted to the shadow scores of each utterance [T, M].

    Args:
        mine: shadow scores [S, M].
        member: whether each utterance was in, bool [S, M].
        theirs: attacked scores [T, M].
    """
    ratio = torch.zeros_like(theirs.double())
    for sign, part in ((1.0, member), (-1.0, ~member)):
        weight = part.double()
        count = weight.sum(dim=0).clamp_min(1.0)
        mean = (mine * weight).sum(dim=0) / count
        spread = (((mine - mean) ** 2 * weight).sum(dim=0) / (count - 1).clamp_min(1.0)).clamp_min(1e-12)
        ratio += sign * (-0.5 * (theirs - mean) ** 2 / spread - 0.5 * spread.log())
    return ratio


def true_positives(ratios: Tensor, truth: Tensor) -> float:
    """Share of the members above the threshold that 1 % of the others pass."""
    threshold = torch.quantile(ratios[~truth], 1.0 - FALSE_POSITIVES)
    return float((ratios[truth] > threshold).double().mean())


def finding(
    attack: str,
    setting: str,
    where: str,
    told: tuple[Tensor, Tensor],
    seed: int,
    role: Role = "figure",
    limit: float | None = None,
) -> Finding:
    """The true-positive rate at 1 % false positives, with an interval by bootstrap over what was attacked.

    Args:
        attack, setting, where, role, limit: see :class:`~fedser.attacks.findings.Finding`.
        told: ratios and truth [T, M].
        seed: of the bootstrap.
    """
    ratios, truth = told
    rng = np.random.default_rng([seed, 43])
    drawn = [torch.from_numpy(rng.integers(0, len(ratios), len(ratios))) for _ in range(_RESAMPLES)]
    low, high = np.quantile([true_positives(ratios[rows], truth[rows]) for rows in drawn], (0.025, 0.975))
    return Finding(
        attack=attack,
        setting=setting,
        where=where,
        measure="TPR at 1 % FPR",
        value=true_positives(ratios, truth),
        low=float(low),
        high=float(high),
        chance=FALSE_POSITIVES,
        n=truth.numel(),
        role=role,
        limit=limit,
    )
