"""Manifests: CSV or JSON lines, one utterance a row, every row checked.

Columns: ``path`` (relative to the manifest), and optionally ``speaker``, ``gender``, ``emotion``, ``start``,
``end`` (seconds), ``channel`` (from 0), ``site``, ``sentence``, ``language``. An empty cell means "unknown".
"""

from __future__ import annotations

import csv
import difflib
import io as text_io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fedser import files
from fedser.audio import labels
from fedser.audio.utterance import Utterance
from fedser.errors import ManifestError, UnknownLabelError

COLUMNS: tuple[str, ...] = (
    "path",
    "speaker",
    "gender",
    "emotion",
    "start",
    "end",
    "channel",
    "site",
    "sentence",
    "language",
)
EXTENSIONS = frozenset({".csv", ".jsonl", ".ndjson"})
NAMES = ("manifest.csv", "manifest.jsonl")
"""Manifests that a folder is searched for, in this order."""

_FORMAT = "A manifest is CSV with a header line, or JSON lines, with the columns " + ", ".join(COLUMNS) + "."
_GENDER = {"female": "female", "f": "female", "w": "female", "male": "male", "m": "male"}
_LONGEST_CELL = 4096

Row = Mapping[str, str]


def is_manifest(path: Path) -> bool:
    """Whether a file's name is that of a manifest."""
    return path.suffix.casefold() in EXTENSIONS


def read(path: Path, mapping: Mapping[str, str] | None = None) -> tuple[Utterance, ...]:
    """Read and check a manifest.

    Whether the recordings exist is not checked here: missing ones are set aside by the inspection.

    Args:
        path: a ``.csv``, ``.jsonl`` or ``.ndjson`` file, UTF-8.
        mapping: label translations, see :func:`fedser.audio.labels.emotion`.

    Raises:
        ManifestError: naming the file and the line.
        UnknownLabelError: a label outside the vocabulary, naming file and line too.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ManifestError(f"{path} cannot be read: {reason}.", "Name an existing manifest.") from None
    except UnicodeDecodeError:
        raise ManifestError(f"{path} is not UTF-8 text.", _FORMAT) from None
    rows = _csv_rows(path, text) if path.suffix.casefold() == ".csv" else _json_rows(path, text)
    utterances = tuple(_utterance(path, line, row, mapping) for line, row in rows)
    if not utterances:
        raise ManifestError(f"{path} has no rows.", _FORMAT)
    return utterances


def write(path: Path, utterances: Sequence[Utterance]) -> None:
    """Write a manifest in one step; CSV, or JSON lines where the name ends in ``.jsonl`` or ``.ndjson``.

    Paths are written relative to the manifest where the recording lies beside or below it, else absolute.
    Columns that no utterance fills are left out.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [_row(utterance, path.parent) for utterance in utterances]
    columns = [name for name in COLUMNS if name == "path" or any(row[name] is not None for row in rows)]
    stream = text_io.StringIO()
    if path.suffix.casefold() == ".csv":
        table = csv.DictWriter(stream, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    else:
        for row in rows:
            known = {name: row[name] for name in columns if row[name] is not None}
            stream.write(json.dumps(known, ensure_ascii=False) + "\n")
    files.write_text(path, stream.getvalue())


def _row(utterance: Utterance, folder: Path) -> dict[str, str | float | int | None]:
    row = {name: getattr(utterance, name) for name in COLUMNS}
    for name in ("start", "end"):
        row[name] = None if row[name] is None else round(row[name], 4)
    place = utterance.path.absolute()
    base = folder.absolute()
    row["path"] = place.relative_to(base).as_posix() if place.is_relative_to(base) else str(place)
    return row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    """Line number and cells of each row that is not blank."""
    if "\0" in text:
        raise ManifestError(f"{path} holds a NUL character.", _FORMAT)
    reader = csv.reader(text_io.StringIO(text, newline=""), strict=True)
    try:
        columns = _columns(path, next(reader, []))
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise ManifestError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells under {len(columns)} columns.",
                    "Quote cells that hold a comma.",
                )
            yield reader.line_num, dict(zip(columns, cells, strict=True))
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: not CSV: {error}.", _FORMAT) from None


def _columns(path: Path, cells: Sequence[str]) -> list[str]:
    columns = [cell.strip().casefold() for cell in cells]
    _check_names(f"{path}, line 1", columns)
    if "path" not in columns:
        raise ManifestError(f"{path}, line 1: there is no column 'path'.", _FORMAT)
    if len(set(columns)) < len(columns):
        raise ManifestError(f"{path}, line 1: a column stands there twice.", _FORMAT)
    return columns


def _check_names(where: str, names: Sequence[str]) -> None:
    for name in names:
        if name not in COLUMNS:
            near = difflib.get_close_matches(name, COLUMNS, n=1)
            guess = f" (did you mean '{near[0]}'?)" if near else ""
            raise ManifestError(f"{where}: unknown column '{name[:40]}'{guess}.", _FORMAT)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise ManifestError(f"{where}: not a JSON object.", _FORMAT) from None
        if not isinstance(row, dict):
            raise ManifestError(f"{where}: not a JSON object.", _FORMAT)
        _check_names(where, list(row))
        if any(isinstance(cell, bool | list | dict) for cell in row.values()):
            raise ManifestError(f"{where}: a value is neither text nor number.", _FORMAT)
        yield number, {name: "" if cell is None else str(cell) for name, cell in row.items()}


def _utterance(path: Path, line: int, row: Row, mapping: Mapping[str, str] | None) -> Utterance:
    where = f"{path}, line {line}"
    cells = {name: cell.strip() for name, cell in row.items()}
    for name, cell in cells.items():
        if len(cell) > _LONGEST_CELL or not cell.isprintable():
            raise ManifestError(f"{where}: '{name}' holds control characters or too much text.", "Correct the row.")
    if not cells.get("path"):
        raise ManifestError(f"{where}: the path is empty.", "Name the recording of this row.")
    start, end = _seconds(where, "start", cells), _seconds(where, "end", cells)
    if end is not None and end <= (start or 0.0):
        raise ManifestError(f"{where}: end {end:g} does not lie after start {start or 0:g}.", "Correct the row.")
    return Utterance(
        path=path.absolute().parent / cells["path"],
        emotion=_emotion(where, cells.get("emotion"), Path(cells["path"]), mapping),
        gender=_gender(where, cells.get("gender")),
        start=start,
        end=end,
        channel=_channel(where, cells.get("channel")),
        speaker=cells.get("speaker") or None,
        site=cells.get("site") or None,
        sentence=cells.get("sentence") or None,
        language=cells.get("language") or None,
    )


def _seconds(where: str, name: str, cells: Row) -> float | None:
    cell = cells.get(name)
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or value > 1e9:
        raise ManifestError(f"{where}: '{name}' is no number of seconds: '{cell[:40]}'.", "Write seconds from 0.")
    return value


def _channel(where: str, cell: str | None) -> int | None:
    if not cell:
        return None
    number = cell[:-2] if cell.endswith(".0") else cell  # spreadsheets write 0.0
    if not (number.isascii() and number.isdigit()) or len(number) > 4:
        raise ManifestError(f"{where}: 'channel' is no channel number: '{cell[:40]}'.", "Channels count from 0.")
    return int(number)


def _gender(where: str, cell: str | None) -> str | None:
    if not cell:
        return None
    gender = _GENDER.get(cell.casefold())
    if gender is None:
        raise ManifestError(f"{where}: unknown gender '{cell[:40]}'.", "Write female, male, or nothing.")
    return gender


def _emotion(where: str, cell: str | None, path: Path, mapping: Mapping[str, str] | None) -> str | None:
    if not cell:
        return None
    try:
        return labels.emotion(cell, path, mapping)
    except UnknownLabelError as error:
        raise UnknownLabelError(f"{where}: {error}", error.hint) from None
