"""audformat databases (folders with ``db.yaml``), read through the optional audformat package.

Emotion and speaker are sought in the columns of the database's tables: by the scheme's name first
(``emotion``, ``speaker``), and gender through the speaker scheme's own labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from fedser.audio import labels
from fedser.audio.utterance import Utterance
from fedser.errors import DependencyError, ManifestError

if TYPE_CHECKING:
    import audformat

HEADER = "db.yaml"


def read(folder: Path, mapping: Mapping[str, str] | None = None) -> tuple[Utterance, ...]:
    """Read the utterances of a database.

    Args:
        folder: the folder with ``db.yaml``.
        mapping: label translations, see :func:`fedser.audio.labels.emotion`.

    Raises:
        DependencyError: the audformat package is not installed.
        ManifestError: the database cannot be read, or has no table with files.
        UnknownLabelError: an emotion outside the vocabulary.
    """
    try:
        import audformat
    except ImportError:
        raise DependencyError(
            f"{folder} is an audformat database, and the package audformat is not installed.",
            "Run: pip install 'fedser[audformat]'",
        ) from None
    try:
        with warnings.catch_warnings():  # audformat uses parts of pandas that are on their way out
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            rows = _rows(audformat.Database.load(str(folder)))
    except Exception as error:  # the package raises errors of many kinds on a damaged database
        reason = " ".join(str(error).split())[:200]
        raise ManifestError(f"{folder / HEADER} cannot be read: {reason}.", "Check the database.") from None
    if not rows:
        raise ManifestError(f"{folder / HEADER} has no table that lists files.", "Check the database.")
    return tuple(_utterance(folder, key, values, mapping) for key, values in sorted(rows.items()))


Key = tuple[str, float, float]


def _rows(database: audformat.Database) -> dict[Key, dict[str, str]]:
    """(file, start, end) → field → value, joined over all tables; −1 stands for an open end."""
    rows: dict[Key, dict[str, str]] = {}
    for name in sorted(database.tables):
        table = database[name]
        fields = {column: _field(column, table[column].scheme_id) for column in table.columns}
        frame = table.get()
        for index, cells in zip(frame.index, frame.itertuples(index=False), strict=True):
            values = rows.setdefault(_key(index), {})
            for column, cell in zip(frame.columns, cells, strict=True):
                field = fields.get(column)
                if field and isinstance(cell, str | int):
                    values.setdefault(field, str(cell))
    genders = _genders(database)
    for values in rows.values():
        if values.get("speaker") in genders:
            values.setdefault("gender", genders[values["speaker"]])
    return rows


def _field(column: str, scheme: str | None) -> str | None:
    """The field that a column fills, by the name of its scheme, else by its own."""
    for name in (scheme, column):
        if name in ("emotion", "speaker", "gender", "language"):
            return name
    return None


def _key(index: str | tuple[str, timedelta, timedelta]) -> Key:
    """A row of a filewise or segmented table."""
    if isinstance(index, str):
        return index, 0.0, -1.0
    file, start, end = index
    return str(file), start.total_seconds(), -1.0 if end != end else end.total_seconds()  # NaT is not itself


def _genders(database: audformat.Database) -> dict[str, str]:
    if "speaker" not in database.schemes:
        return {}
    known = database.schemes["speaker"].labels
    if not isinstance(known, dict):
        return {}
    return {
        str(speaker): facts["gender"]
        for speaker, facts in known.items()
        if isinstance(facts, dict) and facts.get("gender") in ("female", "male")
    }


def _utterance(folder: Path, key: Key, values: dict[str, str], mapping: Mapping[str, str] | None) -> Utterance:
    file, start, end = key
    word = values.get("emotion")
    path = folder / file
    return Utterance(
        path=path,
        emotion=labels.emotion(word, path, mapping) if word else None,
        speaker=values.get("speaker"),
        gender=values.get("gender") if values.get("gender") in ("female", "male") else None,
        language=values.get("language"),
        start=start or None,
        end=end if end >= 0 else None,
    )
