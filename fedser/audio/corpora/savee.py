"""SAVEE, English, four men: ``DC/a01.wav`` or ``DC_a01.wav``.

Haq and Jackson, "Multimodal emotion recognition", Machine Audition (2010).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(?:(DC|JE|JK|KL)_)?(sa|su|[adfhn])(\d\d)", re.IGNORECASE)
_SPEAKERS = {"DC", "JE", "JK", "KL"}
_EMOTION = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}


def read(path: Path) -> Reading:
    """The speaker stands in the file's name, else in its folder's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker = (match[1] or path.parent.name).upper()
    if speaker not in _SPEAKERS:
        return None
    code = match[2].lower()
    return Utterance(
        path=path,
        emotion=_EMOTION[code],
        speaker=speaker,
        gender=MALE,
        sentence=f"{code}{match[3]}",
        language="en",
    )


CORPUS = Corpus("savee", ("savee",), read)
