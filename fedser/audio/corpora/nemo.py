"""nEMO, Polish: ``samples/EB0_anger_1.wav``.

Christop, "nEMO: dataset of emotional speech in Polish", LREC-COLING 2024 (arXiv 2404.06292). Speakers and
their gender are those of the corpus' own ``data.tsv``.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedser.audio.corpora.base import FEMALE, MALE, Corpus, Reading
from fedser.audio.utterance import Utterance

_NAME = re.compile(r"([A-Z][A-Z0-9]{1,3})_(anger|fear|happiness|neutral|sadness|surprised?)_(\d{1,4})", re.IGNORECASE)
_GENDER = {
    "EB0": FEMALE,
    "IC0": FEMALE,
    "KD0": FEMALE,
    "MK0": FEMALE,
    "KS0": MALE,
    "MP0": MALE,
    "SM0": MALE,
    "TP0": MALE,
    "WR0": MALE,
}


def read(path: Path) -> Reading:
    """Speaker, emotion and sentence stand in the file's name."""
    match = _NAME.fullmatch(path.stem)
    if match is None:
        return None
    speaker, word = match[1].upper(), match[2].lower()
    return Utterance(
        path=path,
        emotion="surprise" if word.startswith("surprise") else word,
        speaker=speaker,
        gender=_GENDER.get(speaker),
        sentence=match[3],
        language="pl",
    )


CORPUS = Corpus("nemo", ("nemo",), read)
