"""The one vocabulary of emotion labels and the explicit map of words onto it.

Boredom, calm, excitement, frustration and pleasant surprise stay labels of their own: no corpus is made to
fit another unless the user passes a mapping that says so. The codes of single corpora (``W``, ``rab``,
``05``) belong to their readers in :mod:`fedser.audio.corpora`, not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from fedser.errors import UnknownLabelError, did_you_mean

EMOTIONS: tuple[str, ...] = (
    "amusement",
    "anger",
    "boredom",
    "calm",
    "contempt",
    "disgust",
    "excitement",
    "fear",
    "frustration",
    "happiness",
    "neutral",
    "pleasant_surprise",
    "sadness",
    "surprise",
)

_WORDS: dict[str, tuple[str, ...]] = {
    "amusement": ("amused",),
    "anger": ("angry", "mad"),
    "boredom": ("bored",),
    "calm": ("calmness", "relaxed"),
    "contempt": ("contemptuous",),
    "disgust": ("disgusted", "disgusting"),
    "excitement": ("excited",),
    "fear": ("fearful", "afraid", "scared"),
    "frustration": ("frustrated",),
    "happiness": ("happy", "joy", "joyful"),
    "neutral": ("neutrality",),
    "pleasant_surprise": ("pleasant_surprised", "pleasantly_surprised"),
    "sadness": ("sad",),
    "surprise": ("surprised",),
}
# Three-letter forms that several corpora and tool kits share.
_SHORT: dict[str, str] = {
    "ang": "anger",
    "bor": "boredom",
    "con": "contempt",
    "dis": "disgust",
    "exc": "excitement",
    "fea": "fear",
    "fru": "frustration",
    "hap": "happiness",
    "neu": "neutral",
    "ps": "pleasant_surprise",
    "sur": "surprise",
}

EMOTION_WORDS: Mapping[str, str] = MappingProxyType(
    {word: label for label in EMOTIONS for word in (label, *_WORDS[label])}
)
"""Whole words, in lower case with ``_`` between parts: those that name a folder of recordings."""

ALIASES: Mapping[str, str] = MappingProxyType({**EMOTION_WORDS, **_SHORT})
"""Everything that a manifest may write for a label of the vocabulary."""


def normalise(label: str) -> str:
    """Bring a label to the form of :data:`ALIASES`: lower case, ``_`` between words."""
    return re.sub(r"[\s_\-]+", "_", label.strip().casefold()).strip("_")


def emotion(label: str, path: Path, mapping: Mapping[str, str] | None = None) -> str:
    """Translate a label as written into a label of :data:`EMOTIONS`.

    Args:
        label: the label as a manifest or database writes it.
        path: the recording or manifest that carries it, for the message.
        mapping: translations of the user, tried first; they may also merge labels of the vocabulary
            (``{"calm": "neutral"}``).

    Raises:
        UnknownLabelError: the label, or what the mapping makes of it, lies outside the vocabulary.
    """
    key = normalise(label)
    known = ALIASES.get(key)
    if mapping:
        own = {normalise(word): target for word, target in mapping.items()}
        target = own.get(key, own.get(known) if known else None)
        if target is not None:
            key, known = normalise(target), ALIASES.get(normalise(target))
    if known is None:
        guess = did_you_mean(key, ALIASES)
        raise UnknownLabelError(
            f"{path}: '{label}' is not a known emotion label.{guess}",
            f"Use one of {', '.join(EMOTIONS)}, or map it to one of them.",
        )
    return known


def folder_emotion(name: str) -> str | None:
    """The emotion that a folder is named after, or None: ``Angry``, ``01_sad``, ``pleasant surprise``."""
    return EMOTION_WORDS.get(normalise(re.sub(r"[\d.]+", "_", name)))
