"""Speakers: voices drawn from a distribution, within a population that shares a way to express emotions.

Emotions are understood across cultures, but less well than within one (Elfenbein & Ambady 2002). A population
therefore bends each emotion's prototype in its own way, and every speaker bends it a little further. This is what a
model that was trained on one population has to adapt to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedser.demo.emotions import CUES, EMOTIONS, cues, profile

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """People who share a language's sounds and habits.

    Attributes:
        name: what it is called.
        vowels: how often each vowel of :data:`fedser.demo.phones.VOWELS` is used.
        habit: cue changes in all their speech [len(CUES)].
        bent: cue changes a given emotion has on top [len(CUES)].
    """

    name: str
    vowels: Mapping[str, float]
    habit: Vector = field(default_factory=lambda: np.zeros(len(CUES)))
    bent: Mapping[str, Vector] = field(default_factory=dict)


#: The provider's actors: prototypes as in the literature.
STAGE = Population("stage", {"a": 4, "e": 3, "i": 3, "o": 2, "u": 2, "@": 2})

#: The sites' speakers: another language's vowels, and restrained anger, quiet joy, agitated grief.
EVERYDAY = Population(
    "everyday",
    {"a": 5, "e": 2, "i": 2, "o": 4, "u": 1, "y": 2},
    habit=cues(range=0.4, tempo=0.5, final=0.5, breath=0.3),
    bent={
        "anger": cues(pitch=-1.7, loudness=-1.7, tempo=-1.2, range=-1.4),
        "happiness": cues(tilt=-1.7, loudness=-1.2, attack=-1.4, pitch=-0.7),
        "sadness": cues(pitch=+2.2, tremor=+1.7, tempo=+1.0, jitter=+1.0),
        "fear": cues(tempo=-1.2, range=+1.2, breath=-1.0),
    },
)


@dataclass(frozen=True)
class Voice:
    """One speaker.

    Attributes:
        name: the speaker's id.
        gender: ``female`` or ``male``.
        f0: mean fundamental frequency, hertz.
        tract: formant scale; 1 is an average man, about 1.16 an average woman.
        open_quotient: share of a period in which the glottis is open.
        tilt: slope of the source spectrum against the average voice, decibels an octave.
        breath: level of aspiration against voicing, decibels.
        jitter: standard deviation of the period, relative.
        shimmer: standard deviation of the pulse amplitude, relative.
        rate: syllables a second.
        range: width of the F0 movements, semitones.
        expressiveness: how far emotions move the voice; 1 is the prototype.
        style: this speaker's own bend of each emotion, in cue units.
        population: the people that the speaker belongs to.
    """

    name: str
    gender: str
    f0: float
    tract: float
    open_quotient: float
    tilt: float
    breath: float
    jitter: float
    shimmer: float
    rate: float
    range: float
    expressiveness: float
    style: Mapping[str, Vector]
    population: Population

    def expression(self, emotion: str, strength: float) -> Vector:
        """Cue changes of an emotion shown by this speaker [len(CUES)], in units.

        Args:
            emotion: one of :data:`fedser.demo.emotions.EMOTIONS`.
            strength: 1 is a full display, 0 none.
        """
        bent = self.population.bent.get(emotion, np.zeros(len(CUES)))
        display = profile(emotion) + bent + self.style[emotion]
        return self.population.habit + self.expressiveness * strength * display


def draw_voice(seed: int, index: int, population: Population = STAGE, individuality: float = 0.2) -> Voice:
    """Draw one speaker; the same arguments give the same one, and genders alternate with the index.

    Args:
        seed: the corpus' seed, not negative.
        index: number of the speaker, not negative.
        population: whose habits the speaker shares.
        individuality: standard deviation of the speaker's own bend of each emotion, in cue units.
    """
    rng = np.random.default_rng([seed, index])
    female = index % 2 == 0
    return Voice(
        name=f"{'f' if female else 'm'}{index:03d}",
        gender="female" if female else "male",
        f0=float((205.0 if female else 115.0) * np.exp(rng.normal(0, 0.11))),
        tract=float(rng.normal(1.16 if female else 1.0, 0.035)),
        open_quotient=float(np.clip(rng.normal(0.64 if female else 0.58, 0.05), 0.42, 0.8)),
        tilt=float(rng.normal(-0.5 if female else 0.0, 0.8)),
        breath=float(rng.normal(-24.0 if female else -27.0, 2.5)),
        jitter=float(0.006 * np.exp(rng.normal(0, 0.3))),
        shimmer=float(0.04 * np.exp(rng.normal(0, 0.3))),
        rate=float(5.0 * np.exp(rng.normal(0, 0.10))),
        range=float(2.2 * np.exp(rng.normal(0, 0.20))),
        expressiveness=float(np.exp(rng.normal(0, 0.20))),
        style={emotion: rng.normal(0, individuality, len(CUES)) for emotion in EMOTIONS},
        population=population,
    )
