"""CASIA Chinese emotional speech corpus, Mandarin: ``liuchanhg/angry/201.wav``.

Institute of Automation, Chinese Academy of Sciences. Copies renamed to ``201-angry-liuchanhg.wav`` are read
too.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_EMOTION = {
    "angry": "anger",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
_GENDER = {
    "liuchanhg": FEMALE,  # so spelt in the published folders
    "liuchang": FEMALE,
    "changliu": FEMALE,
    "zhaoquanyin": FEMALE,
    "quanyinzhao": FEMALE,
    "wangzhe": MALE,
    "zhewang": MALE,
    "zhaozuoxiang": MALE,
    "zuoxiangzhao": MALE,
}
_FLAT = re.compile(r"(\d{3})-([a-z]+)-([a-z.]+)", re.IGNORECASE)


def read(path: Path) -> Reading:
    """Sentence, emotion and speaker are the last three path components, from the file upwards."""
    flat = _FLAT.fullmatch(path.stem)
    if flat:
        sentence, word, speaker = flat.groups()
    elif len(path.parts) >= 3 and re.fullmatch(r"\d{3}", path.stem):
        sentence, word, speaker = path.stem, path.parent.name, path.parent.parent.name
    else:
        return None
    label = _EMOTION.get(word.casefold())
    if label is None or not speaker:
        return None
    return Utterance(
        path=path,
        emotion=label,
        speaker=speaker.casefold(),
        gender=_GENDER.get(_key(speaker)),
        sentence=sentence,
        language="zh",
    )


def sure(path: Path) -> Reading:
    """``name/angry/201.wav`` may be anybody's folders: without CASIA's name only its own speakers count."""
    found = read(path)
    return found if isinstance(found, Utterance) and _key(found.speaker or "") in _GENDER else None


def _key(speaker: str) -> str:
    return re.sub(r"[^a-z]", "", speaker.casefold())


CORPUS = Corpus("casia", ("casia",), read, sure=sure)
