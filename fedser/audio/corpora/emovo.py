"""EMOVO, Italian: ``f1/rab-f1-b1.wav`` or flat.

Costantini et al., "EMOVO corpus: an Italian emotional speech database", LREC 2014.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(rab|dis|pau|gio|neu|sor|tri)-([fm][1-3])-([a-z]\d+)", re.IGNORECASE)
_EMOTION = {
    "rab": "anger",  # rabbia
    "dis": "disgust",  # disgusto
    "pau": "fear",  # paura
    "gio": "happiness",  # gioia
    "neu": "neutral",  # neutro
    "sor": "surprise",  # sorpresa
    "tri": "sadness",  # tristezza
}


def read(path: Path) -> Reading:
    """Emotion, speaker and sentence stand in the file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    code, speaker, sentence = (part.lower() for part in match.groups())
    return Utterance(
        path=path,
        emotion=_EMOTION[code],
        speaker=speaker,
        gender=FEMALE if speaker[0] == "f" else MALE,
        sentence=sentence,
        language="it",
    )


CORPUS = Corpus("emovo", ("emovo",), read)
