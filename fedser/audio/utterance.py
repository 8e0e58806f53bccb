"""One utterance: where it lies and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Utterance:
    """A recording, or a part of one, with the labels that its corpus or manifest declares.

    Attributes:
        path: the audio file.
        emotion: a label of :mod:`fedser.audio.labels`, or None where there is none.
        speaker: the speaker's id within the corpus, or None where unknown.
        gender: ``female`` or ``male``, or None where unknown.
        sentence: the spoken text's id, or None.
        language: ISO 639-1 code, or None.
        start: first second of the utterance in the file; None is the beginning.
        end: last second; None is the file's end.
        channel: zero-based channel; None mixes all channels to mono.
        site: the site that a manifest assigns it to, or None.
    """

    path: Path
    emotion: str | None = None
    speaker: str | None = None
    gender: str | None = None
    sentence: str | None = None
    language: str | None = None
    start: float | None = None
    end: float | None = None
    channel: int | None = None
    site: str | None = None
