"""EMO-DB, German: ``wav/03a01Fa.wav``.

Burkhardt et al., "A database of German emotional speech", Interspeech 2005.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(03|08|09|1[0-6])([ab]\d\d)([WLEAFTN])[a-z]?", re.IGNORECASE)
_EMOTION = {
    "W": "anger",  # Wut
    "L": "boredom",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fear",  # Angst
    "F": "happiness",  # Freude
    "T": "sadness",  # Trauer
    "N": "neutral",
}
_MALE = {"03", "10", "11", "12", "15"}


def read(path: Path) -> Reading:
    """Speaker, text, emotion letter and version stand in the file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, text, letter = match.groups()
    return Utterance(
        path=path,
        emotion=_EMOTION[letter.upper()],
        speaker=speaker,
        gender=MALE if speaker in _MALE else FEMALE,
        sentence=text.lower(),
        language="de",
    )


CORPUS = Corpus("emodb", ("emodb", "emodatabase", "berlinemo", "berlindatabaseofemotional"), read)
