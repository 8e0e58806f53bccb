"""What a set of recordings holds, in figures: for ``fedser corpus scan`` and for reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fedser.audio.quality import Finding, Inspection
from fedser.audio.recordings import Recordings

UNKNOWN = "unknown"


def summarise(recordings: Recordings, inspection: Inspection) -> dict[str, Any]:
    """Count what an inspection kept and what it set aside.

    Returns:
        A JSON-able mapping: ``reader``, ``speakers_from``, ``utterances``, ``seconds`` (total, min, mean,
        max), ``emotions``, ``genders``, ``languages``, ``sites``, ``speakers`` (each with gender, utterances,
        seconds and emotions), ``rates``, ``channels``, ``set_aside`` and ``flagged`` (count, by reason, and
        each file).
    """
    kept = inspection.kept
    return {
        "root": str(recordings.root),
        "reader": recordings.reader,
        "speakers_from": recordings.speakers_from,
        "utterances": len(kept),
        "seconds": _spread(inspection.seconds),
        "emotions": _counts([utterance.emotion for utterance in kept]),
        "genders": _counts([utterance.gender for utterance in kept]),
        "languages": _counts([utterance.language for utterance in kept]),
        "sites": _counts([utterance.site for utterance in kept if utterance.site]),
        "speakers": _speakers(inspection),
        "rates": {str(rate): count for rate, count in inspection.rates.items()},
        "channels": {str(number): count for number, count in inspection.channels.items()},
        "set_aside": _findings(inspection.quarantined),
        "flagged": _findings(inspection.flagged),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {"total": 0.0, "min": 0.0, "mean": 0.0, "max": 0.0}
    figures = {
        "total": sum(seconds),
        "min": min(seconds),
        "mean": sum(seconds) / len(seconds),
        "max": max(seconds),
    }
    return {name: round(value, 3) for name, value in figures.items()}


def _counts(values: Sequence[str | None]) -> dict[str, int]:
    """Value → number, sorted by name, what is not known last."""
    counts = Counter(values)
    known = {value: counts[value] for value in sorted(value for value in counts if value is not None)}
    return {**known, UNKNOWN: counts[None]} if counts[None] else known


def _speakers(inspection: Inspection) -> dict[str, dict[str, Any]]:
    groups: dict[str, list[int]] = {}
    for index, utterance in enumerate(inspection.kept):
        groups.setdefault(utterance.speaker or UNKNOWN, []).append(index)
    result = {}
    for speaker in sorted(groups, key=lambda name: (name == UNKNOWN, _natural(name))):
        members = [inspection.kept[index] for index in groups[speaker]]
        result[speaker] = {
            "gender": members[0].gender,
            "utterances": len(members),
            "seconds": round(sum(inspection.seconds[index] for index in groups[speaker]), 3),
            "emotions": _counts([utterance.emotion for utterance in members]),
        }
    return result


def _natural(name: str) -> tuple[str, int, str]:
    """Sort s2 before s10."""
    head = name.rstrip("0123456789")
    return head, int(name[len(head) :] or 0), name


def _findings(findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "count": len(findings),
        "reasons": dict(sorted(Counter(finding.reason for finding in findings).items())),
        "files": [
            {"path": str(finding.utterance.path), "reason": finding.reason, "detail": finding.detail}
            for finding in findings
        ],
    }


def as_text(summary: dict[str, Any], shown: int = 20) -> str:
    """The summary as tables for a terminal; of files set aside or flagged at most ``shown`` are listed."""
    seconds, speakers = summary["seconds"], summary["speakers"]
    known = len(speakers) - (UNKNOWN in speakers)
    genders = ", ".join(f"{count} {name}" for name, count in _speaker_genders(speakers).items())
    lines = [
        f"{summary['root']}",
        f"  read as       {summary['reader']}",
        f"  utterances    {summary['utterances']}, {_clock(seconds['total'])} in all",
        f"  duration      {seconds['min']:.2f} to {seconds['max']:.2f} s, mean {seconds['mean']:.2f} s",
        f"  sample rates  {_list(summary['rates'], ' Hz')}",
        f"  channels      {_list(summary['channels'], '')}",
        f"  speakers      {known}{f' ({genders})' if genders else ''}, from {summary['speakers_from']}",
        f"  languages     {', '.join(summary['languages']) or UNKNOWN}",
        "",
        *_emotion_table(summary),
    ]
    for key, title in (("set_aside", "set aside"), ("flagged", "flagged, kept")):
        lines += ["", *_finding_lines(title, summary[key], shown)]
    return "\n".join(lines)


def _speaker_genders(speakers: dict[str, dict[str, Any]]) -> Counter[str]:
    return Counter(facts["gender"] for facts in speakers.values() if facts["gender"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min {rest:02} s" if hours else f"{minutes} min {rest:02} s"


def _list(counts: dict[str, int], unit: str) -> str:
    return ", ".join(f"{value}{unit}: {count} files" for value, count in counts.items()) or "none"


def _emotion_table(summary: dict[str, Any]) -> list[str]:
    """Speakers down, emotions across, sums in the last row."""
    emotions = list(summary["emotions"])
    rows = [["speaker", "gender", "minutes", "utterances", *emotions]]
    for speaker, facts in summary["speakers"].items():
        counts = [str(facts["emotions"].get(name, 0)) for name in emotions]
        minutes = f"{facts['seconds'] / 60:.1f}"
        rows.append([speaker, facts["gender"] or "", minutes, str(facts["utterances"]), *counts])
    total = [str(count) for count in summary["emotions"].values()]
    rows.append(["all", "", f"{summary['seconds']['total'] / 60:.1f}", str(summary["utterances"]), *total])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(map(_cell, row, widths, range(len(row)))) for row in rows]


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)


def _finding_lines(title: str, findings: dict[str, Any], shown: int) -> list[str]:
    if not findings["count"]:
        return [f"{title}: none"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in findings["reasons"].items())
    lines = [f"{title}: {findings['count']} ({reasons})"]
    for file in findings["files"][:shown]:
        lines.append(f"  {file['reason']:<12}  {file['path']}: {file['detail']}")
    if findings["count"] > shown:
        lines.append(f"  … and {findings['count'] - shown} more: --out FOLDER writes them all to quarantine.csv")
    return lines
