"""IEMOCAP, English: ``Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav``.

Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", LRE 42 (2008). The labels lie
in ``SessionN/dialog/EmoEvaluation/<dialogue>.txt``, in lines such as
``[6.2901 - 8.2357]<TAB>Ses01F_impro01_F000<TAB>neu<TAB>[2.5, 2.5, 2.5]``.

Excitement and frustration stay labels of their own. Utterances on which the raters did not agree (``xxx``) or
named something else (``oth``) are kept without a label: they are speech, but they train and score nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Aside, Corpus, Reader, Reading
from fedser.audio.utterance import Utterance
from fedser.errors import ManifestError

_EMOTION = {
    "ang": "anger",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "sad": "sadness",
    "sur": "surprise",
    "oth": None,
    "xxx": None,
}
_DIALOGUE = r"Ses0(?P<session>[1-5])[FM]_(?:impro|script)\d\d(?:_\d)?[ab]?"
_UTTERANCE = re.compile(rf"(?P<dialogue>{_DIALOGUE})_(?P<gender>[FM])[A-Z]*\d+", re.IGNORECASE)
_WHOLE = re.compile(_DIALOGUE, re.IGNORECASE)
_LINE = re.compile(r"^\[[\d.]+ - [\d.]+\]\s+(\S+)\s+([A-Za-z]{3})\s", re.MULTILINE)


def open_root(root: Path) -> Reader:
    """A reader for the recordings below a root: the corpus' folder, one session of it, or the wav folder."""

    @cache
    def below() -> dict[str, Path]:
        return _annotations_below(root)

    def read_labelled(path: Path) -> Reading:
        return _read(path, below)

    return read_labelled


def read(path: Path) -> Reading:
    """Read one file by itself: the annotation is sought in the session's folder above it."""
    return _read(path, dict)


def _read(path: Path, below: Callable[[], dict[str, Path]]) -> Reading:
    match = _UTTERANCE.fullmatch(path.stem)
    if match is None:
        if _WHOLE.fullmatch(path.stem):
            return Aside("whole_dialogue", "the whole dialogue, whose utterances lie in sentences/wav")
        return None
    dialogue = match["dialogue"].casefold()
    annotation = _annotation_above(path.parent, match["dialogue"]) or below().get(dialogue)
    code = _labels(annotation).get(path.stem.casefold()) if annotation else None
    gender = match["gender"].upper()
    return Utterance(
        path=path,
        emotion=_EMOTION[code] if code else None,
        speaker=f"Ses0{match['session']}{gender}",
        gender=FEMALE if gender == "F" else MALE,
        sentence=dialogue,
        language="en",
    )


def _annotations_below(root: Path) -> dict[str, Path]:
    """Dialogue → annotation file, for the annotation folders at most five levels below the root."""
    found: dict[str, Path] = {}
    for depth in range(6):
        for folder in sorted(root.glob("*/" * depth + "EmoEvaluation")):
            found.update({file.stem.casefold(): file for file in sorted(folder.glob("Ses*.txt"))})
    return found


@lru_cache(maxsize=512)
def _annotation_above(place: Path, dialogue: str) -> Path | None:
    for folder in (place, *place.parents[:4]):
        candidate = folder / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=512)
def _labels(annotation: Path) -> dict[str, str]:
    """Utterance → code. Raises ManifestError where the file cannot be read or names an unknown code."""
    try:
        text = annotation.read_text(encoding="latin-1")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ManifestError(f"{annotation} cannot be read: {reason}.", "Check the corpus' files.") from None
    codes = {name.casefold(): code.casefold() for name, code in _LINE.findall(text)}
    for name, code in codes.items():
        if code not in _EMOTION:
            raise ManifestError(f"{annotation}: {name} has the unknown code '{code}'.", "Check the corpus' files.")
    return codes


CORPUS = Corpus("iemocap", ("iemocap",), read, open=open_root)
