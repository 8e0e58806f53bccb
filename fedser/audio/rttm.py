"""Speaker turns from RTTM files (NIST Rich Transcription), as diarisation tools write them.

``SPEAKER call1 1 3.20 2.15 <NA> <NA> alice <NA> <NA>``: recording, channel (from 1), start, duration, speaker.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedser.errors import ManifestError

_HINT = "A turn reads: SPEAKER recording channel start duration <NA> <NA> speaker <NA> <NA>."
# The other line types of the format carry no turns.
_OTHER = {"SPKR-INFO", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT", "IP", "SU", "CB", "A/P", "SEGMENT"}
_NUMBERED = re.compile(r"(?:spk|spkr|speaker|s)?[_\- ]?\d+|[a-z]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker's turn.

    Attributes:
        start, end: seconds.
        speaker: the speaker's name.
        channel: zero-based channel that the line names.
        where: file and line, for messages.
    """

    start: float
    end: float
    speaker: str
    channel: int
    where: str


def read(place: Path) -> dict[str, list[Turn]]:
    """Read one RTTM file, or all ``*.rttm`` below a folder.

    Numbered names (``SPEAKER_00``, ``A``) that occur in several recordings are different people: they get the
    recording's name in front. Other names mean one person everywhere.

    Returns:
        Recording → its turns by start.

    Raises:
        ManifestError: naming the file and the line.
    """
    if not place.exists():
        raise ManifestError(f"{place} does not exist.", "Name an RTTM file or a folder with RTTM files.")
    sources = sorted(path for path in place.rglob("*") if path.suffix.casefold() == ".rttm")
    sources = sources if place.is_dir() else [place]
    turns: dict[str, list[Turn]] = {}
    for source in sources:
        for recording, turn in _read_file(source):
            turns.setdefault(recording, []).append(turn)
    if not turns:
        raise ManifestError(f"{place} holds no speaker turns.", _HINT)
    return _told_apart({name: sorted(found, key=lambda turn: turn.start) for name, found in turns.items()})


def _read_file(path: Path) -> list[tuple[str, Turn]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ManifestError(f"{path} cannot be read: {reason}.", "Name an RTTM file.") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not UTF-8 text.", "Name an RTTM file.") from None
    turns = []
    for number, line in enumerate(text.split("\n"), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(";;") or fields[0] in _OTHER:
            continue
        turns.append(_turn(f"{path}, line {number}", fields))
    return turns


def _turn(where: str, fields: Sequence[str]) -> tuple[str, Turn]:
    if fields[0] != "SPEAKER" or not 8 <= len(fields) <= 10:
        raise ManifestError(f"{where}: not a speaker turn.", _HINT)
    start, duration = _seconds(where, "start", fields[3]), _seconds(where, "duration", fields[4])
    if duration == 0:
        raise ManifestError(f"{where}: the turn lasts 0 s.", _HINT)
    if not (fields[2].isascii() and fields[2].isdigit()) or not 1 <= int(fields[2][:5]) <= 1024:
        raise ManifestError(f"{where}: '{fields[2][:40]}' is no channel; channels count from 1.", _HINT)
    if fields[7] == "<NA>":
        raise ManifestError(f"{where}: the turn names no speaker.", _HINT)
    return fields[1], Turn(start, start + duration, fields[7], int(fields[2]) - 1, where)


def _seconds(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and 0 <= value <= 1e9):
        raise ManifestError(f"{where}: the {name} '{text[:40]}' is no number of seconds.", _HINT)
    return value


def _told_apart(turns: Mapping[str, list[Turn]]) -> dict[str, list[Turn]]:
    recordings_of: dict[str, set[str]] = {}
    for recording, found in turns.items():
        for turn in found:
            recordings_of.setdefault(turn.speaker, set()).add(recording)
    local = {name for name, places in recordings_of.items() if len(places) > 1 and _NUMBERED.fullmatch(name)}
    return {
        recording: [
            replace(turn, speaker=f"{recording}/{turn.speaker}") if turn.speaker in local else turn for turn in found
        ]
        for recording, found in turns.items()
    }
