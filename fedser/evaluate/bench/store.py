"""The rows of a benchmark on disk: ``results.csv``, and ``confusions.jsonl`` with the counts behind each of them.

Both grow by whole jobs. A run that was broken off goes on: lines cut off by a crash are dropped, and a row counts as
finished when it stands in both files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fedser.errors import OutputError
from fedser.files import write_text

COLUMNS = (
    *("source", "target", "method", "setting", "encoder", "features", "normalisation", "protocol"),
    *("target_set", "seed", "classes", "uar", "war", "macro_f1", "ece", "seconds", "peak_mb"),
    *("chosen_by_guard", "unknown_auroc", "partition"),
)
Row = dict[str, Any]


class Key(NamedTuple):
    """What names a row; every part as text."""

    source: str
    target: str
    method: str
    setting: str
    features: str
    normalisation: str
    protocol: str
    target_set: str
    partition: str
    seed: str


Counts = dict[str, list[tuple[int, int, int]]]  # speaker → (true, answered, count)


class Store:
    """The results in one folder.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._table = folder / "results.csv"
        self._matrices = folder / "confusions.jsonl"
        self.rows: dict[Key, dict[str, str]] = {}
        self.counts: dict[Key, Counts] = {}
        self._read()

    def add(self, rows: Sequence[Row]) -> None:
        """Append the rows of a job; each has the columns, and ``counts`` by speaker.

        Raises:
            OutputError: the folder cannot be written.
        """
        lines = io.StringIO()
        writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
        matrices = []
        for row in rows:
            counts: Counts = row.pop("counts")
            key = key_of(row)
            matrices.append(_line(key, str(row["classes"]), counts))
            writer.writerow(row)
            self.rows[key] = {name: str(row[name]) for name in COLUMNS}
            self.counts[key] = counts
        try:
            with self._matrices.open("a", encoding="utf-8") as file:
                file.writelines(matrices)
            with self._table.open("a", encoding="utf-8", newline="") as file:
                file.write(lines.getvalue())
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(
                f"{self._table} cannot be written: {reason}.", "Free some space, and start the same command again."
            ) from None

    def _read(self) -> None:
        """Take what is complete in both files, and write both anew without the rest."""
        rows: dict[Key, dict[str, str]] = {}
        if self._table.exists():
            with self._table.open(newline="", encoding="utf-8") as lines:
                reader = csv.DictReader(lines)
                if reader.fieldnames is not None and tuple(reader.fieldnames) != COLUMNS:
                    raise OutputError(
                        f"{self._table} has the columns of another version.", "Choose an empty --out folder."
                    )
                found = [row for row in reader if None not in row.values() and None not in row]
            rows = {key_of(row): row for row in found}
        texts: dict[Key, str] = {}
        if self._matrices.exists():
            for text in self._matrices.read_text(encoding="utf-8", errors="replace").splitlines():
                if (entry := _parsed(text)) is not None and entry[0] in rows:
                    self.counts[entry[0]], texts[entry[0]] = entry[1], text
        self.rows = {key: row for key, row in rows.items() if key in texts}
        write_text(self._matrices, "".join(texts[key] + "\n" for key in self.rows))
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows.values())
        write_text(self._table, table.getvalue())


def key_of(row: Mapping[str, Any]) -> Key:
    """The name of a row."""
    return Key(*(str(row[name]) for name in Key._fields))


def dense(counts: Counts, size: int) -> list[list[int]]:
    """The confusion matrix [true][answered] of all speakers."""
    matrix = [[0] * size for _ in range(size)]
    for own in counts.values():
        for true, answered, count in own:
            matrix[true][answered] += count
    return matrix


def _line(key: Key, classes: str, counts: Counts) -> str:
    size = len(classes.split("|"))
    entry = key._asdict() | {"classes": classes, "matrix": dense(counts, size), "speakers": counts}
    return json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n"


def _parsed(text: str) -> tuple[Key, Counts] | None:
    try:
        entry = json.loads(text)
        return key_of(entry), {name: _triples(own) for name, own in entry["speakers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _triples(values: Iterable[Sequence[int]]) -> list[tuple[int, int, int]]:
    return [(int(true), int(answered), int(count)) for true, answered, count in values]
