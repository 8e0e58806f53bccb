"""eNTERFACE'05, English: ``subject 1/anger/sentence 1/s1_an_1.wav`` or flat ``s1_an_1.wav``.

Martin et al., "The eNTERFACE'05 audio-visual emotion database", ICDE workshops 2006. The corpus publishes
video; its sound has to be extracted first. It does not declare the subjects' gender.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import Corpus, Reading
from fedser.audio.utterance import Utterance

_EMOTION = {
    "an": "anger",
    "di": "disgust",
    "fe": "fear",
    "ha": "happiness",
    "sa": "sadness",
    "su": "surprise",
}
# The originals also write s_3_an_1 and s16_su_3avi.
_NAME = re.compile(r"(?:subject\d+_)?s_?(\d{1,2})_(an|di|fe|ha|sa|su)_?(\d)(?:avi)?", re.IGNORECASE)
_SUBJECT = re.compile(r"subject[ _-]?(\d{1,2})", re.IGNORECASE)
_SENTENCE = re.compile(r"sentence[ _-]?(\d)", re.IGNORECASE)


def read(path: Path) -> Reading:
    """Subject, emotion and sentence stand in the file's name, else in the folders above it."""
    match = _NAME.fullmatch(path.stem)
    if match:
        subject, code, sentence = match.groups()
        return _utterance(path, subject, code.lower(), sentence)
    folders = list(reversed(path.parts[:-1]))[:3]
    spoken = _SENTENCE.fullmatch(folders[0]) if folders else None
    if spoken:
        folders = folders[1:]
    if len(folders) < 2:
        return None
    code, person = folders[0][:2].lower(), _SUBJECT.fullmatch(folders[1])
    if person is None or not _is_emotion(folders[0]):
        return None
    return _utterance(path, person.group(1), code, spoken.group(1) if spoken else None)


def _is_emotion(folder: str) -> bool:
    words = {"anger", "angry", "disgust", "fear", "happiness", "happy", "sadness", "sad", "surprise"}
    return folder.casefold() in words


def _utterance(path: Path, subject: str, code: str, sentence: str | None) -> Utterance:
    """Each emotion has its own five sentences, so the sentence's id carries the emotion's code."""
    return Utterance(
        path=path,
        emotion=_EMOTION[code],
        speaker=f"s{int(subject)}",
        sentence=f"{code}{sentence}" if sentence else None,
        language="en",
    )


CORPUS = Corpus("enterface", ("enterface",), read)
