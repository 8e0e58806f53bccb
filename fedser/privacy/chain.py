"""An append-only file of records that notices damage, changes, and that it is shorter than it once was.

One JSON object a line; ``before`` is the hash of the previous record, ``hash`` that of the record without ``hash``.
A second file beside it, the head, holds how many records there are at least and the hash of the last of these. Both are
through to the disk before :meth:`Chain.append` returns, the record first: after a crash between the two the file is
one record ahead of its head, which counts; a file behind its head is refused. Processes take turns by a lock file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedser.errors import LedgerError, OutputError
from fedser.files import write_text
from fedser.lockfile import opened

START = "0" * 64
_HINT = "Restore both files from the newest backup, or stop taking part: what was spent cannot be told any more."
Record = Mapping[str, Any]


class Chain:
    """Records in a file, or in memory where nothing real leaves (simulation).

    Args:
        path: the file; its head and lock lie beside it as ``.head`` and ``.lock``. None for memory.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._memory: list[Record] = []

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out between reading and appending; waits for them."""
        if self._path is None:
            yield
            return
        _folder(self._path)
        with opened(_beside(self._path, ".lock")) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield

    def read(self) -> list[Record]:
        """All records, checked against each other and the head; none where both files are missing.

        Raises:
            LedgerError: torn, altered, behind its head, or one of the two files is gone.
            OutputError: a file cannot be read.
        """
        if self._path is None:
            return list(self._memory)
        data, head = _bytes(self._path), _bytes(_beside(self._path, ".head"))
        if data is None and head is None:
            return []
        if head is None:
            raise LedgerError(f"The head of the ledger {self._path} is gone.", _HINT)
        count, last = _parsed_head(self._path, head)
        records = _parsed(self._path, data or b"")
        if len(records) < count or (records[count - 1]["hash"] if count else START) != last:
            raise LedgerError(f"The ledger {self._path} is behind what it held before, or another one.", _HINT)
        return records

    def append(self, entry: Mapping[str, Any], records: Sequence[Record]) -> int:
        """Write one record and its head through to the disk.

        Args:
            entry: the record without its hashes.
            records: what :meth:`read` gave before, inside the same :meth:`held`.

        Returns:
            The record's number, from 1.

        Raises:
            OutputError: it cannot be written; nothing may be released then.
        """
        record = {**entry, "before": records[-1]["hash"] if records else START}
        record["hash"] = record_hash(record)
        if self._path is None:
            self._memory.append(record)
            return len(self._memory)
        if not records:
            _write_head(self._path, 0, START)
        _append(self._path, record)
        _write_head(self._path, len(records) + 1, record["hash"])
        return len(records) + 1


def _parsed(path: Path, data: bytes) -> list[Record]:
    if data and not data.endswith(b"\n"):
        raise LedgerError(f"The ledger {path} ends in the middle of a record.", _HINT)
    records: list[Record] = []
    before = START
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            record = json.loads(line)
            whole = record["before"] == before and record["hash"] == record_hash(record) and line == _line(record)[:-1]
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise LedgerError(f"Record {number} of the ledger {path} does not continue the chain.", _HINT)
        before = record["hash"]
        records.append(record)
    return records


def _parsed_head(path: Path, head: bytes) -> tuple[int, str]:
    try:
        told = json.loads(head)
        count, last = told["count"], told["last"]
        whole = head == _head(count, last).encode() and isinstance(count, int) and count >= 0 and isinstance(last, str)
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise LedgerError(f"The head of the ledger {path} is damaged.", _HINT)
    return count, last


def _head(count: int, last: str) -> str:
    return json.dumps({"count": count, "last": last}, sort_keys=True) + "\n"


def _write_head(path: Path, count: int, last: str) -> None:
    write_text(_beside(path, ".head"), _head(count, last), 0o600)
    _settle(path.parent)


def _append(path: Path, record: Record) -> None:
    data = _line(record)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            length = os.fstat(descriptor).st_size
            try:
                if os.write(descriptor, data) != len(data):
                    raise OSError("the disk is full")
            except OSError:
                os.ftruncate(descriptor, length)  # what was not written whole was never charged
                raise
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputError(
            f"The ledger {path} cannot be written: {error.strerror or error}.", "Free some space."
        ) from None
    _settle(path.parent)


def _line(record: Record) -> bytes:
    return (json.dumps(record, sort_keys=True) + "\n").encode()


def record_hash(record: Record) -> str:
    """SHA-256 of a record without its own ``hash``; what the next record holds as ``before``."""
    body = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from None


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _folder(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path.parent} cannot be made: {error.strerror or error}.", "Choose another place."
        ) from None


def _settle(folder: Path) -> None:
    """Make renamed and new names in a folder durable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.", "Check the disk.") from None
