"""Speech sounds as synthesis targets: formants after Peterson & Barney (1952) and Klatt (1980)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Phone(NamedTuple):
    """Targets of one stretch of sound.

    Attributes:
        formants: F1, F2, F3 of an average man, hertz.
        voice: level of the glottal source, 0 to 1.
        noise: level of turbulent noise, 0 to 1.
        centre: centre of the noise band, hertz.
        seconds: typical duration at five syllables a second.
    """

    formants: tuple[float, float, float]
    voice: float
    noise: float
    centre: float
    seconds: float


VOWELS: dict[str, tuple[float, float, float]] = {
    "a": (730, 1200, 2440),
    "e": (480, 1900, 2500),
    "i": (280, 2250, 2950),
    "o": (470, 850, 2500),
    "u": (310, 820, 2250),
    "y": (290, 1700, 2200),
    "@": (500, 1450, 2450),
}

#: A consonant is one stretch, or two: the closure and the burst of a stop.
CONSONANTS: dict[str, tuple[Phone, ...]] = {
    "m": (Phone((250, 1000, 2200), 0.35, 0.0, 3000, 0.065),),
    "n": (Phone((250, 1500, 2500), 0.35, 0.0, 3000, 0.060),),
    "l": (Phone((340, 1150, 2700), 0.60, 0.0, 3000, 0.055),),
    "r": (Phone((400, 1250, 1750), 0.60, 0.0, 3000, 0.055),),
    "v": (Phone((300, 1000, 2200), 0.45, 0.06, 5000, 0.060),),
    "z": (Phone((300, 1600, 2550), 0.40, 0.16, 6300, 0.065),),
    "s": (Phone((320, 1600, 2550), 0.0, 0.35, 6300, 0.085),),
    "S": (Phone((300, 1800, 2400), 0.0, 0.45, 3600, 0.085),),
    "f": (Phone((320, 1000, 2200), 0.0, 0.12, 5200, 0.080),),
    "b": (Phone((220, 900, 2200), 0.10, 0.0, 1200, 0.055), Phone((300, 1000, 2200), 0.2, 0.20, 1200, 0.012)),
    "d": (Phone((220, 1600, 2600), 0.10, 0.0, 4000, 0.050), Phone((300, 1650, 2600), 0.2, 0.30, 4000, 0.012)),
    "g": (Phone((220, 1900, 2300), 0.10, 0.0, 2000, 0.050), Phone((300, 1950, 2300), 0.2, 0.30, 2000, 0.016)),
    "p": (Phone((300, 900, 2200), 0.0, 0.0, 1200, 0.070), Phone((350, 1000, 2200), 0.0, 0.25, 1500, 0.020)),
    "t": (Phone((300, 1600, 2600), 0.0, 0.0, 4500, 0.065), Phone((350, 1650, 2600), 0.0, 0.45, 4500, 0.025)),
    "k": (Phone((300, 1900, 2300), 0.0, 0.0, 2000, 0.065), Phone((350, 1950, 2300), 0.0, 0.40, 2200, 0.030)),
}

VOWEL_SECONDS = 0.125


def syllables(count: int, vowels: Mapping[str, float], rng: np.random.Generator) -> list[list[Phone]]:
    """Draw consonant–vowel syllables, each a list of stretches.

    Args:
        count: how many.
        vowels: relative frequency of each vowel.
        rng: the source of chance.
    """
    weights = np.array(list(vowels.values()), dtype=float)
    heads = rng.choice(list(CONSONANTS), count)
    nuclei = rng.choice(list(vowels), count, p=weights / weights.sum())
    return [
        [*CONSONANTS[head], Phone(VOWELS[nucleus], 1.0, 0.0, 3000.0, VOWEL_SECONDS)]
        for head, nucleus in zip(heads, nuclei, strict=True)
    ]
