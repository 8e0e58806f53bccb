"""CREMA-D, English: ``AudioWAV/1001_DFA_ANG_XX.wav``.

Cao et al., IEEE Transactions on Affective Computing 5 (2014). The women are those of the corpus' own
``VideoDemographics.csv``: 43 of the 91 actors.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(10\d\d)_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)", re.IGNORECASE)
_EMOTION = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
# fmt: off
_FEMALE = frozenset({
    2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 18, 20, 21, 24, 25, 28, 29, 30, 37, 43, 46, 47, 49, 52, 53, 54, 55, 56,
    58, 60, 61, 63, 72, 73, 74, 75, 76, 78, 79, 82, 84, 89, 91,
})
# fmt: on


def read(path: Path) -> Reading:
    """Actor, sentence, emotion and level stand in the file's name."""
    match = _NAME.fullmatch(path.stem)
    actor = int(match[1]) - 1000 if match else 0
    if match is None or not 1 <= actor <= 91:
        return None
    return Utterance(
        path=path,
        emotion=_EMOTION[match[3].upper()],
        speaker=match[1],
        gender=FEMALE if actor in _FEMALE else MALE,
        sentence=match[2].upper(),
        language="en",
    )


CORPUS = Corpus("cremad", ("cremad", "crema", "audiowav"), read)
