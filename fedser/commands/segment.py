"""``fedser segment``: long recordings to a manifest of utterances."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedser import console
from fedser.console import Format
from fedser.errors import NoAudioError, UsageError

if TYPE_CHECKING:
    from fedser.audio.segment import Segmentation


class Channels(Enum):
    """What the channels of a recording are."""

    mix = "mix"
    split = "split"


def segment(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Recordings: a folder, a manifest, or one file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The manifest to write: .csv or .jsonl.")],
    channels: Annotated[Channels, typer.Option(help="split: each channel is one party of a call.")] = Channels.mix,
    rttm: Annotated[Path | None, typer.Option(metavar="FILE_OR_FOLDER", help="Speaker turns in RTTM files.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Read file names as those of this corpus.")] = None,
    speaker_from: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Speakers: parent, grandparent, none, or a regular expression."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.text,
) -> None:
    """Find speech in long recordings and write a manifest of segments of 1 to 15 s."""
    from fedser import files
    from fedser.audio import manifest, recordings
    from fedser.audio import rttm as turns_of
    from fedser.audio import segment as cutting

    if not manifest.is_manifest(out):
        raise UsageError(f"{out} is no manifest's name.", "Let --out end in .csv or .jsonl.")
    if out.is_file() and not all(row.end for row in manifest.read(out)):
        raise UsageError(f"{out} exists and was not written by fedser segment.", "Give --out another name.")
    files.output_folder(out.parent)
    turns = turns_of.read(rttm) if rttm is not None else None
    found = recordings.resolve(directory, corpus=corpus, speaker_from=speaker_from, ignore=out)
    outcome = cutting.segment(found, channels.value, turns)
    if not outcome.segments:
        reasons = sorted({finding.reason for finding in outcome.aside})
        raise NoAudioError(
            f"{directory} gave no segment of speech ({', '.join(reasons)}).",
            "Check the recordings with: fedser corpus scan",
        )
    manifest.write(out, outcome.segments)
    result = _result(out, outcome, len(found.utterances))
    console.emit(result, form, lambda: _text(result))


def _result(out: Path, outcome: Segmentation, recordings: int) -> dict[str, Any]:
    lengths = [(one.end or 0.0) - (one.start or 0.0) for one in outcome.segments]
    return {
        "manifest": str(out),
        "recordings": recordings,
        "segments": len(lengths),
        "speakers": len({one.speaker for one in outcome.segments if one.speaker}),
        "seconds": {
            "total": round(sum(lengths), 3),
            "min": round(min(lengths), 3),
            "mean": round(sum(lengths) / len(lengths), 3),
            "max": round(max(lengths), 3),
        },
        "too_short": outcome.short,
        "recordings_without_turns": outcome.without_turns,
        "set_aside": [
            {"path": str(finding.utterance.path), "reason": finding.reason, "detail": finding.detail}
            for finding in outcome.aside
        ],
    }


def _text(result: dict[str, Any]) -> str:
    seconds = result["seconds"]
    lines = [
        f"{result['manifest']}: {result['segments']} segments from {result['recordings']} recordings",
        f"  speech      {seconds['total'] / 60:.1f} min in all, segments of {seconds['min']:.2f} to "
        f"{seconds['max']:.2f} s, mean {seconds['mean']:.2f} s",
        f"  speakers    {result['speakers'] or 'unknown'}",
        f"  left out    {result['too_short']} stretches shorter than 1 s",
    ]
    if result["recordings_without_turns"]:
        lines.append(f"  no turns    {result['recordings_without_turns']} recordings: their speakers are unknown")
    for item in result["set_aside"]:
        lines.append(f"  set aside   {item['path']}: {item['reason']}, {item['detail']}")
    return "\n".join(lines)
