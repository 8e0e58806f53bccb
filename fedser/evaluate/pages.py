"""What a report consists of: a page of sections, a section of tables, figures, matrices and lists.

These are plain values; the template turns them into HTML and escapes every text on its way.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeGuard

from markupsafe import Markup


@dataclass(frozen=True)
class Table:
    """Rows of text under column names; the first cell of a row is its heading."""

    type: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    prose: bool = False  # cells hold words, not numbers
    best: Collection[tuple[int, int]] = ()  # (row, column) of cells in bold


@dataclass(frozen=True)
class Drawing:
    """A figure; ``svg`` is our own drawing and the only thing that the template does not escape."""

    type: ClassVar[str] = "figure"
    name: str
    svg: Markup
    alt: str
    caption: str


@dataclass(frozen=True)
class Shade:
    """A field of a confusion matrix: its text, its hover text, its shade from 0 to 10."""

    text: str
    title: str
    shade: int


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix as a table."""

    title: str
    classes: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Shade]]]


@dataclass(frozen=True)
class Matrices:
    """Several confusion matrices side by side."""

    type: ClassVar[str] = "matrices"
    matrices: Sequence[Matrix]


@dataclass(frozen=True)
class Listing:
    """Sentences, one a bullet."""

    type: ClassVar[str] = "list"
    entries: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    type: ClassVar[str] = "code"
    text: str


Block = Table | Drawing | Matrices | Listing | Code


@dataclass(frozen=True)
class Section:
    """A heading, sentences, blocks; ``folded`` hides the blocks behind a click."""

    title: str
    text: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    folded: bool = False


@dataclass(frozen=True)
class Number:
    """One of the large figures at the top."""

    name: str
    value: str
    spread: str = ""
    main: bool = False


@dataclass(frozen=True)
class Page:
    """A whole report; ``files`` are figures for use elsewhere: name → SVG."""

    title: str
    kind: str
    lead: Sequence[str]
    warnings: Sequence[str] = ()
    numbers: Sequence[Number] = ()
    sections: Sequence[Section] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    footer: str = ""


def percent(value: Any, digits: int = 1) -> str:  # noqa: ANN401 - anything may stand in a results file
    """A fraction as a percentage, or a dash where there is no number."""
    return "–" if not is_number(value) else f"{100 * value:.{digits}f}"


def spread(mean: Any, std: Any, seeds: int) -> str:  # noqa: ANN401
    """``mean ± std`` in percent; without the second part for a single seed."""
    return percent(mean) + (f" ± {percent(std)}" if seeds > 1 and is_number(mean) and is_number(std) else "")


def number_of(count: int, noun: str) -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def signed(value: float) -> str:
    """A difference with its sign, one digit after the point."""
    return f"{value:+.1f}".replace("-", "−")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value of a results file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def confusion_matrix(title: str, classes: Sequence[str], counts: Sequence[Sequence[int]]) -> Matrix:
    """Percent of each row, shaded; the counts stand in the hover text."""
    rows = []
    for name, row in zip(classes, counts, strict=True):
        total = sum(row)
        shades = [
            Shade(
                f"{100 * count / total:.0f}" if total else "–",
                f"{name} answered as {answer}: {count} of {total}",
                round(10 * count / total) if total else 0,
            )
            for answer, count in zip(classes, row, strict=True)
        ]
        rows.append((name, shades))
    return Matrix(title, classes, rows)


def flatten(values: Mapping[str, Any], prefix: str = "") -> list[list[str]]:
    """Nested settings as rows of dotted key and value."""
    rows: list[list[str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{prefix}{key}.")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else "–" if value is None else str(value)
            rows.append([f"{prefix}{key}", shown or "–"])
    return rows


def about(results: Mapping[str, Any]) -> list[Section]:
    """How the run was made: command, settings, versions, seeds, revision."""
    versions = results.get("versions") or {}
    facts = [
        ["date", str(results.get("created") or results.get("date") or "–")],
        ["seeds", ", ".join(str(seed) for seed in results.get("seeds") or []) or "–"],
        ["device", str(results.get("device") or "cpu")],
        ["seconds", str(results.get("seconds", "–"))],
        ["peak memory (MB)", str(results.get("peak_memory_mb", "–"))],
        ["git revision", str(results.get("git") or "installed package")],
        ["python", str(results.get("python") or versions.get("python") or "–")],
        *([name, str(number or "–")] for name, number in versions.items() if name != "python"),
    ]
    blocks: list[Block] = [Code(str(results["command"]))] if results.get("command") else []
    blocks.append(Table("Run", ("fact", "value"), facts, prose=True))
    config = results.get("config") or results.get("settings_used") or {}
    if config:
        blocks.append(Table("Settings", ("key", "value"), flatten(config), prose=True))
    return [Section("How to repeat this run", blocks=blocks, folded=True)]
