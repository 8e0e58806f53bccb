"""Which files below a folder are recordings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

AUDIO = frozenset(
    {
        ".wav",
        ".wave",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".aif",
        ".aiff",
        ".aifc",
        ".mp3",
        ".au",
        ".snd",
        ".caf",
    }
    | {".w64", ".rf64"}
)
"""File extensions, in lower case, of the formats that are read."""

OTHER_AUDIO = frozenset({".m4a", ".aac", ".wma", ".amr", ".3gp", ".mka", ".ape", ".ra", ".sph"})
"""Recordings in formats that are not read: they are set aside, not overlooked."""

VIDEO = frozenset({".avi", ".mp4", ".mov", ".mkv", ".flv", ".webm", ".mpg", ".mpeg", ".wmv"})


@dataclass(slots=True)
class Found:
    """The files of interest below a folder, each list sorted.

    Attributes:
        audio: recordings that can be read.
        other: recordings in formats that are not read.
        videos: number of video files.
        closed: folders that could not be opened, with the reason.
    """

    audio: list[Path] = field(default_factory=list)
    other: list[Path] = field(default_factory=list)
    videos: int = 0
    closed: list[tuple[Path, str]] = field(default_factory=list)


def find(root: Path) -> Found:
    """Find all recordings below a folder, in sorted order.

    Follows links to folders, but enters each real folder once, so that link loops end. Hidden files and
    folders and archive leftovers (``__MACOSX``) are not looked at.
    """
    found = Found()
    for folder, names in _walk(root, found.closed):
        for name in sorted(names):
            suffix = Path(name).suffix.casefold()
            if name.startswith("."):
                continue
            if suffix in AUDIO:
                found.audio.append(folder / name)
            elif suffix in OTHER_AUDIO:
                found.other.append(folder / name)
            elif suffix in VIDEO:
                found.videos += 1
    found.audio.sort()
    found.other.sort()
    return found


def _walk(root: Path, closed: list[tuple[Path, str]]) -> Iterator[tuple[Path, list[str]]]:
    def note(error: OSError) -> None:
        closed.append((Path(error.filename), (error.strerror or str(error)).lower()))

    entered: set[tuple[int, int]] = set()
    for folder, folders, names in os.walk(root, onerror=note, followlinks=True):
        status = Path(folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in entered:
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        yield Path(folder), names
