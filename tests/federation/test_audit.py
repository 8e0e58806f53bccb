"""The audit log: a chain that shows every later change."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from fedser.errors import OutputError, PolicyError
from fedser.federation.audit import AuditLog, read
from fedser.privacy.chain import START


@pytest.fixture
def path(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "state" / "audit.jsonl")
    for number in range(3):
        log.append({"event": "update", "round": number})
    return tmp_path / "state" / "audit.jsonl"


def test_records_form_a_chain_and_go_on_after_a_restart(path: Path) -> None:
    AuditLog(path).append({"event": "update", "round": 3})
    records = list(read(path))
    assert [record["round"] for record in records] == [0, 1, 2, 3]
    assert [record["before"] for record in records] == [START, *(record["hash"] for record in records[:-1])]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def damage(lines: list[str], kind: str) -> list[str]:
    if kind == "changed":
        return [lines[0], lines[1].replace('"round": 1', '"round": 7'), lines[2]]
    if kind == "removed":
        return [lines[0], lines[2]]
    if kind == "swapped":
        return [lines[1], lines[0], lines[2]]
    if kind == "torn":
        return [*lines[:2], lines[2][:20]]
    if kind == "rewritten":  # a changed record with a fitting hash of its own breaks the next link
        record = json.loads(lines[0])
        return [json.dumps({**record, "hash": "0" * 64}), *lines[1:]]
    return [*lines, "[]"]


@pytest.mark.parametrize("kind", ["changed", "removed", "swapped", "torn", "rewritten", "foreign"])
def test_a_broken_chain_is_named_and_not_continued(path: Path, kind: str) -> None:
    path.write_text("\n".join(damage(path.read_text().splitlines(), kind)) + "\n")
    with pytest.raises(PolicyError, match=r"Line [1-4] "):
        list(read(path))
    with pytest.raises(PolicyError):
        AuditLog(path)


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = AuditLog(tmp_path / "file" / "audit.jsonl")
    with pytest.raises(OutputError, match="cannot be written"):
        log.append({"event": "update"})
    assert log.last == START


def test_in_memory_the_same_chain(path: Path) -> None:
    log = AuditLog()
    for number in range(3):
        log.append({"event": "update", "round": number})
    assert log.records == list(read(path))
