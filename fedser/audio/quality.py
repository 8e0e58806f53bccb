"""Which recordings can be used, and why the others cannot: nothing is dropped silently.

Set aside (quarantined): ``missing``, ``unreadable``, ``empty``, ``corrupt``, ``wrong_header``,
``no_channel``, ``out_of_range``, ``too_short``, ``silent``, ``duplicate``, and what a reader sets aside.
Flagged and kept: ``clipped``, and ``odd_rate`` for a lone file whose rate differs from all the others'.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fedser import console, files
from fedser.audio import header
from fedser.audio.measure import Part, Recording, measure
from fedser.audio.utterance import Utterance
from fedser.errors import AudioError

Duplicates = Literal["site", "speaker", "keep"]
SHORTEST = 0.3
"""Seconds below which an utterance is too short to carry an emotion."""
SILENCE = 1e-4
"""Root mean square around the mean (full scale 1, that is −80 dB) below which a recording is silent."""
CLIPPED = 1e-4
"""Share of samples inside runs of at least three at full scale from which a recording counts as clipped."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One utterance that was set aside or flagged.

    Attributes:
        utterance: the utterance; for a file outside any corpus only its path is known.
        reason: one word, see the module's docstring.
        detail: one clause for people.
    """

    utterance: Utterance
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What an inspection found.

    Attributes:
        kept: the usable utterances, in the order given.
        digests: SHA-256 (hex) of each kept utterance's file.
        seconds: duration of each kept utterance.
        quarantined: what was set aside.
        flagged: what was kept but should be known.
        rates: sample rate in Hz → number of readable files.
        channels: number of channels → number of readable files.
    """

    kept: tuple[Utterance, ...]
    digests: tuple[str, ...]
    seconds: tuple[float, ...]
    quarantined: tuple[Finding, ...]
    flagged: tuple[Finding, ...]
    rates: Mapping[int, int]
    channels: Mapping[int, int]


def inspect(
    utterances: Sequence[Utterance], aside: Sequence[Finding] = (), duplicates: Duplicates = "site"
) -> Inspection:
    """Decode every file once, by blocks, and sort its utterances into usable and set aside.

    Args:
        utterances: as :func:`fedser.audio.recordings.resolve` gives them; several may share a file.
        aside: what the resolution already set aside (``Recordings.aside``); listed first in ``quarantined``.
        duplicates: among which utterances they are looked for: the whole ``site``'s, each ``speaker``'s own, or not at
            all (``keep``). Under a privacy unit no recording may decide whether another unit's is kept.

    Returns:
        The inspection. Of duplicates (same samples after decoding, whatever the format) the first one given
        is kept. No error of a single file stops the run.
    """
    by_file: dict[Path, list[int]] = {}
    for index, utterance in enumerate(utterances):
        by_file.setdefault(utterance.path, []).append(index)
    verdicts: dict[int, Verdict] = {}
    recordings: dict[Path, Recording] = {}
    with console.progress("checking recordings", len(by_file)) as step:
        for path, indices in by_file.items():
            members = [utterances[index] for index in indices]
            recording, found = _judge(path, members)
            if recording is not None:
                recordings[path] = recording
            verdicts.update(zip(indices, found, strict=True))
            step()
    return _sort(utterances, verdicts, recordings, aside, duplicates)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one utterance: a part to use, or a reason to set it aside."""

    part: Part | None
    reason: str = ""
    detail: str = ""


def _judge(path: Path, members: Sequence[Utterance]) -> tuple[Recording | None, list[Verdict]]:
    """Judge all utterances of one file."""

    def all_of_them(reason: str, detail: str) -> tuple[None, list[Verdict]]:
        return None, [Verdict(None, reason, detail)] * len(members)

    try:
        if not path.is_file():
            return all_of_them("missing", "the file does not exist")
        if path.stat().st_size == 0:
            return all_of_them("empty", "the file holds no bytes")
        problem = header.riff_problem(path)
        recording = measure(path, members)
    except AudioError as error:
        return all_of_them("corrupt", str(error).removeprefix(f"{path} ").rstrip("."))
    except OSError as error:
        return all_of_them("unreadable", (error.strerror or str(error)).lower())
    problem = (
        header.implausible_rate(recording.rate)
        or problem
        or header.claimed_length(recording.claimed, recording.frames, recording.rate)
    )
    if recording.frames == 0:
        return all_of_them("empty", "the recording holds no samples")
    if problem:
        return all_of_them("wrong_header", problem)
    return recording, [_verdict(recording, part) for part in recording.parts]


def _verdict(recording: Recording, part: Part | str) -> Verdict:
    if isinstance(part, str):
        reason, _, detail = part.partition(": ")
        return Verdict(None, reason, detail)
    if not part.finite:
        return Verdict(None, "corrupt", "it holds samples that are no finite numbers")
    seconds = part.frames / recording.rate
    if seconds < SHORTEST:
        return Verdict(None, "too_short", f"it lasts {seconds:.3f} s, at least {SHORTEST} s are needed")
    if part.rms < SILENCE:
        return Verdict(None, "silent", f"its level is {part.decibel:.0f} dB of full scale")
    return Verdict(part)


def _sort(
    utterances: Sequence[Utterance],
    verdicts: Mapping[int, Verdict],
    recordings: Mapping[Path, Recording],
    aside: Sequence[Finding],
    duplicates: Duplicates,
) -> Inspection:
    """Go through the utterances in their order; the first of each content stays."""
    kept: list[Utterance] = []
    digests: list[str] = []
    seconds: list[float] = []
    quarantined, flagged = list(aside), []
    seen: dict[tuple[object, ...], Utterance] = {}
    rates = Counter(recording.rate for recording in recordings.values())
    usual = _usual(rates)
    for index, utterance in enumerate(utterances):
        verdict = verdicts[index]
        if verdict.part is None:
            quarantined.append(Finding(utterance, verdict.reason, verdict.detail))
            continue
        recording, part = recordings[utterance.path], verdict.part
        among = {"site": None, "speaker": utterance.speaker, "keep": index}[duplicates]
        key = (recording.content, part.first, part.frames, utterance.channel, among)
        first = seen.setdefault(key, utterance)
        if first is not utterance:
            quarantined.append(Finding(utterance, "duplicate", f"the same samples as {first.path}"))
            continue
        kept.append(utterance)
        digests.append(recording.digest)
        seconds.append(part.frames / recording.rate)
        if part.clipped >= CLIPPED:
            flagged.append(Finding(utterance, "clipped", f"{100 * part.clipped:.2f} % of it at full scale"))
        if usual is not None and recording.rate != usual:
            flagged.append(Finding(utterance, "odd_rate", f"{recording.rate} Hz, nearly all others {usual} Hz"))
    channels = Counter(recording.channels for recording in recordings.values())
    return Inspection(
        tuple(kept),
        tuple(digests),
        tuple(seconds),
        tuple(quarantined),
        tuple(flagged),
        dict(sorted(rates.items())),
        dict(sorted(channels.items())),
    )


def _usual(rates: Counter[int]) -> int | None:
    """The rate of at least 95 % of at least 20 files, or None."""
    if sum(rates.values()) < 20:
        return None
    rate, count = rates.most_common(1)[0]
    return rate if count >= 0.95 * sum(rates.values()) else None


def write_quarantine(path: Path, inspection: Inspection) -> None:
    """Write ``quarantine.csv``: one row for each utterance set aside or flagged, with the reason.

    Columns: path, start, end, channel, speaker, action (``set aside`` or ``kept``), reason, detail. It names
    recordings and speakers, so that only its owner may read it.

    Raises:
        OutputError: the file cannot be written.
    """
    with files.replacing(path, mode=0o600) as scratch, scratch.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "start", "end", "channel", "speaker", "action", "reason", "detail"])
        for action, findings in (("set aside", inspection.quarantined), ("kept", inspection.flagged)):
            for finding in findings:
                it = finding.utterance
                row = [
                    it.path,
                    it.start,
                    it.end,
                    it.channel,
                    it.speaker,
                    action,
                    finding.reason,
                    finding.detail,
                ]
                table.writerow(["" if cell is None else cell for cell in row])
