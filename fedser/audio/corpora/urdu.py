"""URDU, from talk shows: ``Angry/SM1_F19_A019.wav`` or flat.

Latif et al., "Cross lingual speech emotion recognition: Urdu vs. Western languages", FIT 2018. SM and SF are
men and women, F19 is the file of that speaker, the last letter repeats the emotion.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(S([MF])\d+)_F\d+_([AHNS])\d+", re.IGNORECASE)
_EMOTION = {"A": "anger", "H": "happiness", "N": "neutral", "S": "sadness"}


def read(path: Path) -> Reading:
    """Speaker and emotion stand in the file's name; the spoken text is not identified."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    return Utterance(
        path=path,
        emotion=_EMOTION[match[3].upper()],
        speaker=match[1].upper(),
        gender=MALE if match[2].upper() == "M" else FEMALE,
        language="ur",
    )


CORPUS = Corpus("urdu", ("urdu",), read)
