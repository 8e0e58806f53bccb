"""A small world to attack: random features whose spread tells the gender, a small model, real sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from fedser.attacks.people import People, of
from fedser.attacks.settings import AttackSettings
from fedser.attacks.sites import Keys, fresh_keys
from fedser.attacks.study import Source
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.config import validate
from fedser.models import EmotionClassifier, ModelSettings, fit_logistic, initialise

CLASSES = ("anger", "neutral", "sadness")
FEATURES = 24


def speech(speakers: int = 24, utterances: int = 10, own: float = 0.3) -> SpeechData:
    """Neighbouring features go together in women and against each other in men, which no normalisation removes.

    Each speaker varies by ``own`` along a direction of theirs as well.
    """
    draw = generator("test attacks")
    rows, people = [], []
    for number in range(speakers):
        gender = ("female", "male")[number % 2]
        x = torch.randn(utterances, FEATURES, generator=draw)
        x[:, 1::2] = 0.3 * x[:, 1::2] + (1 - 2 * (number % 2)) * x[:, ::2]
        x += own * torch.randn(utterances, 1, generator=draw) * torch.randn(1, FEATURES, generator=draw)
        rows.append(x)
        people += [
            Utterance(Path(f"{number}-{k}.wav"), CLASSES[k % 3], f"speaker-{number:02d}", gender)
            for k in range(utterances)
        ]
    return SpeechData("made up", tuple(people), torch.cat(rows), FeatureSettings())


@dataclass(frozen=True)
class Lab:
    """The parts of a small attack."""

    people: People
    known: People
    victims: People
    source: Source
    keys: Keys

    @staticmethod
    def settings(**changes: object) -> AttackSettings:
        values: dict[str, object] = {
            "study": {"steps": 3, "bystanders": 2, "learning_rate": 0.05},
            "inference": {"shadow": 48, "test": 48, "speakers": 1, "utterances": 8, "known": 4, "rounds": [1, 2]},
            "membership": {"pool": 16, "shadow": 50, "test": 16, "rounds": 1, "models": 6, "bundle_pool": 60},
            "imprint": {"utterances": 60, "rounds": 2, "cosine": 0.9},
            "audit": {"canaries": 100},
        }
        return validate(AttackSettings, values | changes)


@pytest.fixture(scope="session")
def small() -> Lab:
    """One world for all tests of the attacks."""
    data = speech()
    everybody = of(data)
    known, victims = everybody.halves(np.random.default_rng(1))
    model = EmotionClassifier(ModelSettings(hidden=64, bottleneck=16, dropout=0.0), (FEATURES,), CLASSES)
    initialise(model, generator("test attacks model"))
    rule = NormalisationSettings(rule="corpus")
    normaliser = SiteNormaliser.fit(data.raw, data.speakers, rule)
    x = normaliser.transform(data.raw, data.speakers)
    linear = fit_logistic(x, data.labels(CLASSES), CLASSES)
    return Lab(everybody, known, victims, Source(model.eval(), linear, rule, normaliser), fresh_keys())


@pytest.fixture(scope="session")
def four() -> People:
    """Four speakers, each of whom varies along a direction of their own."""
    return of(speech(4, 60, own=1.0))
