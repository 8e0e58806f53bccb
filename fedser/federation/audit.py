"""The site's audit log: what left, recorded before it leaves, in a chain that shows any later change.

One JSON object a line. ``before`` is the hash of the previous line's record, ``hash`` that of the record
itself without ``hash``. A line that is changed, removed from the middle or put in breaks the chain; lines cut
from the end leave a shorter chain that is whole: compare the last hash with one kept elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedser.errors import OutputError, PolicyError
from fedser.privacy.chain import START, record_hash

_HINT = "Keep the damaged file, and find out who changed it before the site takes part again."


class AuditLog:
    """An append-only log in a file, or in memory where nothing real leaves (simulation).

    Args:
        path: the file, made owner-only when missing; None for memory.

    Raises:
        PolicyError: the file is there and its chain is broken.
        OutputError: the file cannot be read or made.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.records: list[dict[str, Any]] = []
        self.last = START
        if path is not None and path.exists():
            for record in read(path):
                self.last = record["hash"]

    def append(self, entry: Mapping[str, Any]) -> str:
        """Write one record through to the disk and return its hash.

        Raises:
            OutputError: it could not be written; the caller must then send nothing.
        """
        record = {**entry, "before": self.last}
        record["hash"] = record_hash(record)
        if self._path is None:
            self.records.append(record)
        else:
            _append_line(self._path, json.dumps(record, sort_keys=True))
        self.last = record["hash"]
        return self.last


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, checking the chain on the way.

    Raises:
        PolicyError: a line is damaged or the chain is broken; the message names the line.
        OutputError: the file cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise OutputError(f"The audit log {path} cannot be read: {error}.", "Check its permissions.") from None
    before = START
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            claimed = record["hash"]
            whole = record["before"] == before and claimed == record_hash(record)
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise PolicyError(f"Line {number} of the audit log {path} does not continue the chain.", _HINT)
        before = claimed
        yield record


def _append_line(path: Path, line: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            data = (line + "\n").encode()
            if os.write(file, data) != len(data):
                raise OSError("the disk is full")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"The audit log {path} cannot be written: {reason}.", "Free some space.") from None
