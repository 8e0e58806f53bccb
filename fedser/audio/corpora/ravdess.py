"""RAVDESS, English, speech only: ``Actor_12/03-01-05-01-02-01-12.wav``.

Livingstone and Russo, PLoS ONE 13 (2018). Fields: modality, vocal channel, emotion, intensity, statement,
repetition, actor. Song (vocal channel 02) is set aside, and so is video without sound (modality 02).
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Aside, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"(0[123])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")
_EMOTION = {
    "01": "neutral",
    "02": "calm",
    "03": "happiness",
    "04": "sadness",
    "05": "anger",
    "06": "fear",
    "07": "disgust",
    "08": "surprise",
}


def read(path: Path) -> Reading:
    """Everything stands in the file's name; actors with odd numbers are men."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    modality, channel, code, _, statement, _, actor = match.groups()
    if channel == "02":
        return Aside("song", "RAVDESS song, not speech")
    if modality == "02":
        return Aside("no_sound", "RAVDESS video without sound")
    return Utterance(
        path=path,
        emotion=_EMOTION[code],
        speaker=actor,
        gender=MALE if int(actor) % 2 else FEMALE,
        sentence=statement,
        language="en",
    )


CORPUS = Corpus("ravdess", ("ravdess", "audiospeechactors"), read)
