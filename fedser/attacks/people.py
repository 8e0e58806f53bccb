"""Speakers with their utterances: those that the attacker knows, and those at the sites he attacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedser.attacks.settings import AttackSettings
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.demo.corpus import CorpusPlan, write_corpus
from fedser.demo.voices import EVERYDAY
from fedser.errors import TooLittleDataError

GENDERS = ("female", "male")
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class People:
    """Utterances by speaker.

    Attributes:
        speech: all utterances with their raw features.
        rows: of each speaker.
        gender: of each speaker, 0 for female and 1 for male.
    """

    speech: SpeechData
    rows: dict[str, Rows]
    gender: dict[str, int]

    def named(self, gender: int | None = None) -> list[str]:
        """Speakers of a gender, or all of them, in the alphabet's order."""
        return sorted(name for name, own in self.gender.items() if gender is None or own == gender)

    def among(self, names: Sequence[str]) -> People:
        """Some of the speakers, over the same utterances."""
        return People(self.speech, {name: self.rows[name] for name in names}, {n: self.gender[n] for n in names})

    def halves(self, rng: np.random.Generator) -> tuple[People, People]:
        """Two groups without a common speaker, of equally many women and equally many men.

        Raises:
            TooLittleDataError: fewer than four women or four men.
        """
        own: tuple[list[str], list[str]] = ([], [])
        for gender, label in enumerate(GENDERS):
            names = self.named(gender)
            if len(names) < 4:
                raise TooLittleDataError(
                    f"There are {len(names)} {label} speakers, and the attacks need four.",
                    "Name more corpora with declared genders, or leave 'corpora' empty for synthetic speech.",
                )
            rng.shuffle(names)
            for place, name in enumerate(names):
                own[place % 2].append(name)
        return self.among(own[0]), self.among(own[1])


def load(settings: AttackSettings, features: FeatureSettings, folder: Path) -> People:
    """Read the corpora, or synthesise speech into ``folder``.

    Raises:
        TooLittleDataError: no speaker with a known gender and four utterances.
        FedserError: recordings do not fit.
    """
    if settings.corpora:
        parts = [
            dataset.load(path, features, name=name, corpus=settings.readers.get(name), need_labels=True)
            for name, path in settings.corpora.items()
        ]
        return of(dataset.join(parts))
    own = settings.voices
    plan = CorpusPlan(
        *("voices", own.speakers, own.speakers * own.utterances, EVERYDAY), seconds=own.seconds, first=5000
    )
    if not (folder / "manifest.csv").is_file():
        write_corpus(folder, plan, settings.seed)
    return of(dataset.load(folder, features, name="voices", need_labels=True))


def of(speech: SpeechData) -> People:
    """The speakers whose gender is known and who have at least four utterances.

    Raises:
        TooLittleDataError: there is none.
    """
    rows: dict[str, list[int]] = {}
    gender: dict[str, int] = {}
    for row, utterance in enumerate(speech.utterances):
        if utterance.speaker is not None and utterance.gender in GENDERS:
            rows.setdefault(utterance.speaker, []).append(row)
            gender[utterance.speaker] = GENDERS.index(utterance.gender)
    kept = {name: np.array(own, dtype=np.int64) for name, own in rows.items() if len(own) >= 4}
    if not kept:
        raise TooLittleDataError(
            "No speaker has a declared gender and four utterances.", "Name corpora whose reader declares both."
        )
    return People(speech, kept, {name: gender[name] for name in kept})
