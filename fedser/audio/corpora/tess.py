"""TESS, English, two women: ``OAF_angry/OAF_back_angry.wav``.

Pichora-Fuller and Dupuis, "Toronto emotional speech set" (2020). OAF is the older, YAF the younger speaker;
``ps`` is pleasant surprise, a label of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, Corpus, Reading
from fedser.audio.utterance import Utterance

# One published file is called OA_bite_neutral.
_NAME = re.compile(r"(OAF?|YAF?)_([a-z']+)_(angry|disgust|fear|happy|neutral|ps|sad)", re.IGNORECASE)
_EMOTION = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "ps": "pleasant_surprise",
    "sad": "sadness",
}


def read(path: Path) -> Reading:
    """Speaker, word and emotion stand in the file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    return Utterance(
        path=path,
        emotion=_EMOTION[match[3].lower()],
        speaker=f"{match[1][:2].upper()}F",
        gender=FEMALE,
        sentence=match[2].lower(),
        language="en",
    )


CORPUS = Corpus("tess", ("tess", "torontoemotional"), read)
