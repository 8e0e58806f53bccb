"""Targets with other mixtures of emotions, drawn from corpora in which every speaker shows every emotion."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

# Emotions and speakers of the utterances, and a random generator → numbers of the utterances to keep.
Draw = Callable[[Sequence[str], Sequence[str], np.random.Generator], list[int]]


def dirichlet(alpha: float, most: int) -> Draw:
    """At most ``most`` utterances a speaker, emotions by shares from Dirichlet(alpha); inf is balanced."""

    def draw(emotions: Sequence[str], speakers: Sequence[str], random: np.random.Generator) -> list[int]:
        kinds, kept = sorted(set(emotions)), list[int]()
        for speaker in sorted(set(speakers)):
            even = np.full(len(kinds), 1 / len(kinds))
            shares = even if np.isinf(alpha) else random.dirichlet([alpha] * len(kinds))
            for kind, wanted in zip(kinds, random.multinomial(most, shares), strict=True):
                kept += _some(emotions, speakers, kind, speaker, random)[:wanted]
        return kept

    return draw


def one_emotion(emotions: Sequence[str], speakers: Sequence[str], random: np.random.Generator) -> list[int]:
    """Each speaker shows one emotion, at most 20 times."""
    kinds = [str(kind) for kind in random.permutation(sorted(set(emotions)))]
    people = [str(name) for name in random.permutation(sorted(set(speakers)))]
    emotion = dict(zip(people, itertools.cycle(kinds), strict=False))  # the emotions go round
    return [i for name, kind in emotion.items() for i in _some(emotions, speakers, kind, name, random)[:20]]


def mostly_neutral(emotions: Sequence[str], speakers: Sequence[str], random: np.random.Generator) -> list[int]:
    """70 % neutral for each speaker."""
    kept = list[int]()
    for speaker in sorted(set(speakers)):
        mine = [i for i, name in enumerate(speakers) if name == speaker]
        calm = [i for i in mine if emotions[i] == "neutral"]
        rest = [int(i) for i in random.permutation([i for i in mine if emotions[i] != "neutral"])]
        kept += calm + rest[: max(1, round(len(calm) * 3 / 7))]
    return kept


def some_speakers(count: int, then: Draw | None = None, most: int | None = None) -> Draw:
    """A few speakers, all of their utterances or what ``then`` keeps of them, at most ``most`` in all."""

    def draw(emotions: Sequence[str], speakers: Sequence[str], random: np.random.Generator) -> list[int]:
        chosen = set(random.permutation(sorted(set(speakers)))[:count].tolist())
        rows = [int(i) for i in random.permutation(len(speakers)) if speakers[i] in chosen][:most]
        if then is None:
            return rows
        return [rows[i] for i in then([emotions[i] for i in rows], [speakers[i] for i in rows], random)]

    return draw


def _some(
    emotions: Sequence[str], speakers: Sequence[str], kind: str, speaker: str, random: np.random.Generator
) -> list[int]:
    both = zip(emotions, speakers, strict=True)
    return [int(i) for i in random.permutation([i for i, it in enumerate(both) if it == (kind, speaker)])]


SHIFTS: dict[str, Draw] = {
    "as recorded": lambda emotions, speakers, random: list(range(len(speakers))),
    "20 a speaker, balanced": dirichlet(np.inf, 20),
    "20, Dirichlet 10": dirichlet(10, 20),
    "20, Dirichlet 1": dirichlet(1, 20),
    "20, Dirichlet 0.3": dirichlet(0.3, 20),
    "20, Dirichlet 0.1": dirichlet(0.1, 20),
    "60, Dirichlet 0.3": dirichlet(0.3, 60),
    "one emotion each": one_emotion,
    "70 % neutral": mostly_neutral,
    "two speakers": some_speakers(2),
    "two, Dirichlet 0.3": some_speakers(2, dirichlet(0.3, 40)),
    "one speaker": some_speakers(1),
    "ten utterances": some_speakers(3, most=10),
}
