"""Long recordings (calls, interviews) to utterances of 1 to 15 s.

Stretches of speech come from :mod:`fedser.audio.vad` or from the turns of an RTTM file. Short neighbours are
joined, lone short ones widened into the quiet around them, long ones cut at their deepest pause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from fedser import console
from fedser.audio import vad
from fedser.audio.quality import Finding
from fedser.audio.recordings import Recordings
from fedser.audio.rttm import Turn
from fedser.audio.utterance import Utterance
from fedser.audio.vad import FRAMES_A_SECOND, Span
from fedser.errors import AudioError, ManifestError

SHORTEST, LONGEST = 1.0, 15.0
"""Seconds of the shortest and the longest segment."""

Channels = Literal["mix", "split"]


@dataclass(slots=True)
class Segmentation:
    """The outcome for a set of recordings.

    Attributes:
        segments: utterances with start and end, in the order of the recordings.
        aside: recordings without a segment, each with a reason.
        short: stretches of speech too short for a segment of 1 s.
        without_turns: recordings that the RTTM files do not name.
    """

    segments: list[Utterance] = field(default_factory=list)
    aside: list[Finding] = field(default_factory=list)
    short: int = 0
    without_turns: int = 0


def segment(
    recordings: Recordings, channels: Channels = "mix", turns: Mapping[str, Sequence[Turn]] | None = None
) -> Segmentation:
    """Cut recordings into segments.

    Args:
        recordings: what :func:`fedser.audio.recordings.resolve` found; labels and speakers are passed on.
        channels: ``mix`` averages the channels; ``split`` treats each as a party of its own, whose speaker is
            called ``<recording>/ch<number>``.
        turns: recording name (file name or relative path, without extension) → speaker turns.

    Raises:
        ManifestError: the turns name none of the recordings, or lie outside theirs.
    """
    root = recordings.root if recordings.root.is_dir() else recordings.root.parent
    result = Segmentation(aside=list(recordings.aside))
    _levels.cache_clear()
    names = {utterance.path: _names(utterance.path, root) for utterance in recordings.utterances}
    if turns is not None and not any(name in turns for pair in names.values() for name in pair):
        raise ManifestError(
            f"The turns name none of the recordings: they name {', '.join(sorted(turns)[:3])}.",
            "The second field of a turn is the recording's file name without extension.",
        )
    with console.progress("finding speech", len(recordings.utterances)) as step:
        for utterance in recordings.utterances:
            own = next((turns[name] for name in names[utterance.path] if name in turns), None) if turns else None
            result.without_turns += turns is not None and own is None
            _add(result, utterance, names[utterance.path][0], channels, own)
            step()
    return result


def _names(path: Path, root: Path) -> tuple[str, str]:
    """The relative path and the file name, both without extension."""
    place, base = path.absolute(), root.absolute()
    relative = place.relative_to(base) if place.is_relative_to(base) else Path(place.name)
    return relative.with_suffix("").as_posix(), path.stem


def _add(
    result: Segmentation, utterance: Utterance, name: str, channels: Channels, turns: Sequence[Turn] | None
) -> None:
    """Add the segments of one recording."""
    try:
        level = _levels(utterance.path, channels == "mix" and utterance.channel is None)
        if utterance.channel is not None and utterance.channel >= len(level):
            raise AudioError(f"{utterance.path} has no channel {utterance.channel}: it has {len(level)}.")
    except AudioError as error:
        detail = str(error).removeprefix(f"{utterance.path} ").rstrip(".")
        result.aside.append(Finding(utterance, "corrupt", detail))
        return
    before = len(result.segments)
    leaked = vad.leakage(level)
    for known, row in _parties(utterance, name, channels, len(level)):
        window = _window(utterance, level.shape[1])
        if turns is None:
            spans, short = _from_speech(level[row], leaked[row], window)
            pieces = [(known, span) for span in spans]
        else:
            pieces, short = _from_turns(known, level[row], window, turns)
        result.short += short
        result.segments += [replace(one, start=start, end=end) for one, (start, end) in pieces]
    if len(result.segments) == before:
        result.aside.append(Finding(utterance, "no_speech", "no stretch of speech of at least 1 s was found"))


@lru_cache(maxsize=2)
def _levels(path: Path, mix: bool) -> np.ndarray:
    """The rows of a manifest that lie in one file share its levels."""
    return vad.levels(path, mix=mix)


def _parties(utterance: Utterance, name: str, channels: Channels, rows: int) -> list[tuple[Utterance, int]]:
    """Each party with its row of the levels."""
    if utterance.channel is not None:
        return [(utterance, utterance.channel)]
    if channels == "mix":
        return [(utterance, 0)]
    return [(replace(utterance, channel=row, speaker=f"{name}/ch{row}", gender=None), row) for row in range(rows)]


def _window(utterance: Utterance, frames: int) -> Span:
    """The part of the file that the utterance spans."""
    length = frames / FRAMES_A_SECOND
    return utterance.start or 0.0, min(utterance.end or length, length)


def _from_speech(level: np.ndarray, leaked: np.ndarray, window: Span) -> tuple[list[Span], int]:
    """Segments of one channel, and the number of stretches that are too short."""
    first, last = (round(edge * FRAMES_A_SECOND) for edge in window)
    offset = first / FRAMES_A_SECOND
    found = [(start + offset, end + offset) for start, end in vad.speech(level[first:last], leaked[first:last])]
    joined = _join(found, gap=SHORTEST)
    widened = _widen(joined, window)
    return _cut_all([span for span in widened if _length(span) >= SHORTEST], level), sum(
        _length(span) < SHORTEST for span in widened
    )


def _from_turns(
    known: Utterance, level: np.ndarray, window: Span, turns: Sequence[Turn]
) -> tuple[list[tuple[Utterance, Span]], int]:
    """Segments of the turns in one channel, speaker by speaker, in order of time."""
    mine = [turn for turn in turns if known.channel is None or turn.channel == known.channel]
    for turn in mine:
        if turn.start >= len(level) / FRAMES_A_SECOND:
            raise ManifestError(f"{turn.where}: the turn starts after the recording's end.", "Correct the turn.")
    pieces: list[tuple[Utterance, Span]] = []
    short = 0
    for speaker in sorted({turn.speaker for turn in mine}):
        spans = [(max(turn.start, window[0]), min(turn.end, window[1])) for turn in mine if turn.speaker == speaker]
        joined = _join([span for span in spans if _length(span) > 0], gap=vad.GAP)
        short += sum(_length(span) < SHORTEST for span in joined)
        whole = [span for span in joined if _length(span) >= SHORTEST]
        gender = known.gender if known.speaker == speaker else None
        named = replace(known, speaker=speaker, gender=gender)
        pieces += [(named, span) for span in _cut_all(whole, level)]
    return sorted(pieces, key=lambda piece: piece[1]), short


def _length(span: Span) -> float:
    return round(span[1] - span[0], 6)


def _join(spans: Sequence[Span], gap: float) -> list[Span]:
    """Join a short span with the neighbour before it where little quiet lies between; overlaps always."""
    joined: list[Span] = []
    for start, end in spans:
        if joined:
            before = joined[-1]
            together = (before[0], max(before[1], end))
            short = min(_length(before), end - start) < SHORTEST
            if start <= before[1] or (short and start - before[1] < gap and _length(together) <= LONGEST):
                joined[-1] = together
                continue
        joined.append((start, end))
    return joined


def _widen(spans: Sequence[Span], window: Span) -> list[Span]:
    """Widen short spans evenly to 1 s, as far as the neighbours and the recording's ends leave room."""
    result: list[Span] = []
    for index, (start, end) in enumerate(spans):
        missing = SHORTEST - (end - start)
        if missing > 0:
            low = result[-1][1] if result else window[0]
            high = spans[index + 1][0] if index + 1 < len(spans) else window[1]
            left = min(start - low, max(missing / 2, missing - (high - end)))
            start -= max(left, 0.0)
            end = min(high, max(end, start + SHORTEST))
        result.append((start, end))
    return result


def _cut_all(spans: Sequence[Span], level: np.ndarray) -> list[Span]:
    return [piece for span in spans for piece in _cut(span, level)]


def _cut(span: Span, level: np.ndarray) -> list[Span]:
    """Cut a span at its quietest tenth of a second until no piece is longer than 15 s."""
    pieces, todo = [], [span]
    while todo:
        start, end = todo.pop()
        if _length((start, end)) <= LONGEST:
            pieces.append((start, end))
            continue
        at = _deepest(level, start + SHORTEST, end - SHORTEST)
        todo += [(at, end), (start, at)]
    return pieces


def _deepest(level: np.ndarray, start: float, end: float) -> float:
    """Seconds of the quietest 0.1 s between two times."""
    first, last = round(start * FRAMES_A_SECOND), round(end * FRAMES_A_SECOND)
    width = FRAMES_A_SECOND // 10
    inside = level[first:last].astype(np.float64)
    if len(inside) < width:
        return (start + end) / 2
    depth = np.convolve(inside, np.ones(width) / width, mode="valid")
    return (first + int(depth.argmin()) + width / 2) / FRAMES_A_SECOND
