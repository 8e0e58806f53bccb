"""How an emotion changes a voice: one table of acoustic cues.

The directions follow two reviews of vocal expression: Banse & Scherer, "Acoustic profiles in vocal emotion
expression" (1996), and Juslin & Laukka, "Communication of emotions in vocal expression and music performance"
(2003, their table of cues). The sizes are ours: one unit is a clearly audible change, and :data:`UNITS` says
what it means physically. They describe acted prototypes, not people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CUES = (
    "pitch",  # mean F0
    "range",  # width of the F0 movements
    "loudness",  # vocal effort
    "tempo",  # syllables a second
    "tilt",  # flatness of the source spectrum
    "breath",  # aspiration
    "jitter",  # irregular periods, with shimmer
    "tremor",  # slow trembling of F0
    "lips",  # smile (+) or protrusion (−): formants move
    "precision",  # size of the vowel space
    "attack",  # steepness of syllable onsets
    "final",  # last pitch movement: rise (+) or fall (−)
    "pauses",  # share of silence
)

#: What one unit of a cue changes (applied in :mod:`fedser.demo.synth`).
UNITS = {
    "pitch": 3.0,  # semitones
    "range": 0.55,  # natural logarithm of the width
    "loudness": 4.8,  # decibels
    "tempo": 0.21,  # natural logarithm of the rate
    "tilt": 1.75,  # decibels an octave
    "breath": 6.4,  # decibels
    "jitter": 0.64,  # natural logarithm
    "tremor": 0.48,  # semitones of depth
    "lips": 0.048,  # relative shift of the formants
    "precision": 0.175,  # relative size of the vowel space
    "attack": 0.48,  # natural logarithm of the onset's speed
    "final": 2.5,  # semitones
    "pauses": 0.055,  # share of the time
}

_TABLE: dict[str, tuple[float, ...]] = {
    #            pitch range  loud tempo  tilt breath jitter tremor lips precis attack final pauses
    "anger": (+1.0, +1.2, +1.9, +0.7, +1.9, -0.8, +0.9, +0.0, -0.2, +1.1, +1.5, -0.9, -0.6),
    "boredom": (-0.8, -1.3, -0.7, -1.3, -0.5, +0.0, +0.1, +0.0, -0.2, -1.1, -0.9, -0.5, +0.7),
    "disgust": (-0.7, +0.1, +0.2, -0.9, +0.5, +0.2, +1.5, +0.0, -1.2, +0.2, +0.5, -1.1, +0.8),
    "fear": (+1.9, -0.6, +0.1, +1.1, -0.3, +1.1, +0.5, +1.8, -0.3, -0.3, +0.0, +0.7, +0.3),
    "happiness": (+1.4, +1.7, +1.0, +0.6, +0.8, -0.2, -0.4, +0.0, +1.5, +0.7, +0.8, +1.1, -0.5),
    "neutral": (0.0,) * 13,
    "sadness": (-0.9, -1.0, -1.5, -1.0, -1.6, +1.5, +0.2, +0.5, -0.3, -0.8, -1.2, -0.7, +1.2),
}

EMOTIONS = tuple(_TABLE)


def profile(emotion: str) -> NDArray[np.float64]:
    """The cue changes of an emotion's prototype against neutral speech, in units [len(CUES)].

    Raises:
        KeyError: the emotion is not one of :data:`EMOTIONS`.
    """
    return np.array(_TABLE[emotion])


def cues(**changes: float) -> NDArray[np.float64]:
    """A vector of cue changes from named ones; all others are zero.

    Raises:
        KeyError: a name is not in :data:`CUES`.
    """
    unknown = set(changes) - set(CUES)
    if unknown:
        raise KeyError(f"no such cue: {', '.join(sorted(unknown))}")
    return np.array([changes.get(name, 0.0) for name in CUES])
