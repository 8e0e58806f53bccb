"""Gender and speaker inference: classifiers trained on shadow sites tell what a site's updates reveal.

Property inference with shadow models (Melis et al. 2019, "Exploiting unintended feature leakage in collaborative
learning"; Feng et al. 2021 for gender in federated speech emotion recognition). The attacker makes sites of speakers
that he has recordings of, has them answer the same orders, and trains on their updates. He chooses the layers, the
penalty and, where there is noise, whether to train with or without it, on shadow sites alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedser.attacks import ridge
from fedser.attacks.findings import Finding, Role
from fedser.attacks.people import People, Rows
from fedser.attacks.sites import Defence
from fedser.attacks.study import Attack, Views
from fedser.errors import TooLittleDataError
from fedser.evaluate.metrics import uar

FOLDS = 3


@dataclass(frozen=True)
class Draw:
    """One site: whose utterances it has, its class, and the fold of recordings that it was drawn from."""

    rows: Rows
    label: int
    group: int


def gender_sites(
    people: People, count: int, speakers: int, utterances: int, folds: int, rng: np.random.Generator
) -> list[Draw]:
    """Sites of one gender each, women's and men's in turn; a fold's speakers are in no other fold."""
    folds = min(folds, *(len(people.named(gender)) // speakers for gender in (0, 1)))
    if folds < 1:
        raise TooLittleDataError(f"No site of {speakers} speakers of one gender can be made.", "Set fewer speakers.")
    parts = {gender: [people.named(gender)[fold::folds] for fold in range(folds)] for gender in (0, 1)}
    drawn = []
    for number in range(count):
        gender, fold = number % 2, (number // 2) % folds
        names = rng.choice(parts[gender][fold], speakers, replace=False)
        rows = np.concatenate([people.rows[str(name)] for name in names])
        drawn.append(Draw(rng.permutation(rows)[:utterances], gender, fold))
    return drawn


def speaker_sites(
    people: People, known: Sequence[str], shadow: int, test: int, utterances: int, rng: np.random.Generator
) -> tuple[list[Draw], list[Draw]]:
    """Sites of one known speaker each; the attacker's recordings are no site's, and come in two folds."""
    own = {name: rng.permutation(people.rows[name]) for name in known}
    thirds = {name: np.array_split(rows, 3) for name, rows in own.items()}
    drawn: list[Draw] = []
    for number in range(shadow + test):
        label = number % len(known)
        fold = (number // len(known)) % 2 if number < shadow else 2
        rows = thirds[known[label]][fold]
        size = max(min(utterances, len(rows)) * 3 // 4, min(len(rows), 2))  # sites of one speaker differ in a part
        drawn.append(Draw(rng.permutation(rows)[:size], label, fold))
    return drawn[:shadow], drawn[shadow:]


def infer(
    attack: Attack, clean: Defence, shadow: Sequence[Draw], test: Sequence[Draw], people: People, moments: Sequence[int]
) -> list[tuple[int, str, ridge.Answers, Tensor]]:
    """Attack the test sites after each of some rounds.

    Args:
        attack: the federation.
        clean: the same defence without its noise, for the attacker's own sites.
        shadow, test: the attacker's and the attacked sites.
        people: whose utterances they have.
        moments: after which rounds to answer.

    Returns:
        (round, ``chosen`` or a layer's name, answers, true classes [T]).
    """
    unit = attack.defence.policy.privacy.unit
    crowd = [attack.source.site(people, draw.rows, unit) for draw in (*shadow, *test)]
    groups = [draw.group for draw in shadow] + [-1] * len(test)
    labels = torch.tensor([draw.label for draw in shadow])
    truth = torch.tensor([draw.label for draw in test])
    views, found = Views(attack.plan), []
    train, told = attack.training(len(shadow), len(crowd)), list(range(len(shadow), len(crowd)))
    rng = np.random.default_rng([attack.settings.seed, 29])
    for heard in attack.overhear(clean, crowd, groups, len(shadow), rng):
        views.add(heard)
        if heard.round not in moments:
            continue
        now = views.now()
        found.append((heard.round, "chosen", ridge.attack(now, labels, groups[: len(shadow)], train, told), truth))
        for name in now:
            answers = ridge.attack({name: now[name]}, labels, groups[: len(shadow)], train, told)
            found.append((heard.round, name, answers, truth))
    return found


def findings(
    name: str,
    setting: str,
    answers: Sequence[tuple[int, str, ridge.Answers, Tensor]],
    limits: tuple[float, float | None],
    seed: int,
) -> list[Finding]:
    """Figures of an inference: the attacker's choice after each round is what a limit judges.

    Args:
        name: of the attack.
        setting: of the defence.
        answers: see :func:`infer`.
        limits: of the control (after the last round) and of the bar.
        seed: of the bootstrap.
    """
    last, found = max(number for number, *_ in answers), []
    for number, view, told, truth in answers:
        chosen = view == "chosen"
        role: Role = "figure"
        limit: float | None = None
        if chosen and setting == "none" and number == last:
            role, limit = "control", limits[0]
        elif chosen and setting == "private" and limits[1] is not None:
            role, limit = "bar", limits[1]
        low, high = ridge.interval(truth, told.classes, seed)
        found.append(
            Finding(
                attack=name,
                setting=setting,
                where=f"{number} round{'s' if number > 1 else ''}, {told.view if not chosen else 'attacker’s choice'}",
                measure="UAR",
                value=uar(truth, told.classes),
                low=low,
                high=high,
                chance=1 / told.scores.shape[1],
                n=len(truth),
                role=role,
                limit=limit,
            )
        )
    return found
