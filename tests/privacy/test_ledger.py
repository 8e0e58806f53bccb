"""The ledger: charges survive, and whatever happened to its files it refuses or tells at least the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedser.errors import BudgetError, LedgerError, OutputError
from fedser.privacy import chain
from fedser.privacy.accountant import Accountant, Charge
from fedser.privacy.ledger import Ledger, open_ledger
from fedser.privacy.settings import PrivacySettings

NOISE, DELTA = 5.0, 1e-5


def ledger(path: Path | None, epsilon: float = 20.0, **options: object) -> Ledger:
    given = {"site": "clinic", "unit": "site", **options}
    return Ledger(path, str(given.pop("site")), given.pop("unit"), epsilon, DELTA, **given)  # type: ignore[arg-type]


def charge(book: Ledger, round: int = 1, noise: float = NOISE) -> int:
    return book.charge(noise, 1.0, 1, study="study", round=round, attempt=0, fingerprint="f" * 64)


def truth(charges: int) -> float:
    """What so many charges cost, counted without a ledger."""
    return Accountant(discrete=True, charges=[Charge(NOISE, 1.0, charges)]).epsilon(DELTA)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "ledger.jsonl"


def test_charges_survive_a_restart_and_compose_over_studies_and_versions(path: Path) -> None:
    first = ledger(path)
    assert first.spent() == 0
    assert [charge(first, 1), charge(first, 2)] == [1, 2]
    again = ledger(path)
    again.charge(NOISE, 1.0, 1, study="another study", round=1, attempt=3, fingerprint="e" * 64)  # other data, too
    assert again.spent() == first.spent() == truth(3)
    assert again.left() == pytest.approx(20.0 - truth(3))
    assert [json.loads(line)["fingerprint"][0] for line in path.read_text().splitlines()] == ["f", "f", "e"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_charge_beyond_the_budget_is_refused_and_not_charged(path: Path) -> None:
    book = ledger(path, epsilon=(truth(3) + truth(4)) / 2)
    for number in range(3):
        charge(book, number)
    with pytest.raises(BudgetError, match="no room"):
        charge(book, 4)
    assert book.spent() == truth(3)
    charge(book, 5, noise=100.0)  # a smaller one still fits
    with pytest.raises(BudgetError):
        charge(ledger(path, epsilon=1.0))  # a smaller budget counts what was spent under a larger one


def test_two_state_folders_share_it_by_its_path(tmp_path: Path) -> None:
    privacy = PrivacySettings(unit="site", ledger=tmp_path / "shared.jsonl", site="clinic", noise=NOISE)
    books = [open_ledger(privacy, name, tmp_path / name / "ledger.jsonl") for name in ("a-1", "b-2")]
    for number, book in enumerate(books):
        assert book is not None
        charge(book, number)
        assert book.spent() == truth(number + 1)
    assert not (tmp_path / "a-1").exists()
    assert open_ledger(PrivacySettings(), "a-1", None) is None


def test_processes_that_charge_at_once_take_turns(path: Path) -> None:
    books = [ledger(path, epsilon=truth(12)) for _ in range(4)]
    refused: list[BaseException] = []

    def work(book: Ledger) -> None:
        for number in range(5):
            try:
                charge(book, number)
            except BudgetError as error:
                refused.append(error)

    threads = [threading.Thread(target=work, args=(book,)) for book in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger(path)) == 12
    assert len(refused) == 8


def test_units_have_budgets_of_their_own_in_one_file(path: Path) -> None:
    charge(ledger(path))
    speaker = ledger(path, unit="speaker")
    assert speaker.spent() == 0
    speaker.charge(3.0, 0.1, 3, study="study", round=2, attempt=0)
    assert speaker.spent() == Accountant(charges=[Charge(3.0, 0.1, 3)]).epsilon(DELTA)
    assert ledger(path).spent() == truth(1)
    assert len(speaker) == 2


def test_another_sites_ledger_is_refused(path: Path) -> None:
    charge(ledger(path))
    with pytest.raises(LedgerError, match="clinic"):
        ledger(path, site="renamed")


def test_cut_at_every_byte_it_refuses_or_tells_at_least_the_truth(path: Path) -> None:
    """The series with more charges, and with SIGKILL: ``benchmarks/privacy/ledger.py``."""
    for number in range(3):
        charge(ledger(path), number)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(LedgerError):
            ledger(path)
    path.write_bytes(whole)
    assert ledger(path).spent() == truth(3)


def test_a_cut_head_is_refused(path: Path) -> None:
    charge(ledger(path))
    head = path.with_name(path.name + ".head")
    whole = head.read_bytes()
    for length in range(len(whole)):
        head.write_bytes(whole[:length])
        with pytest.raises(LedgerError):
            ledger(path)
    head.unlink()
    with pytest.raises(LedgerError, match="gone"):
        ledger(path)


def test_one_flipped_byte_anywhere_is_noticed(path: Path) -> None:
    for number in range(2):
        charge(ledger(path), number)
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(LedgerError):
            ledger(path)


def lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "the last gone": lambda told: told[:-1],
    "the first gone": lambda told: told[1:],
    "one in the middle gone": lambda told: told[:1] + told[2:],
    "all gone": lambda told: [],
    "two exchanged": lambda told: [told[1], told[0], told[2]],
    "one twice": lambda told: [*told, told[-1]],
    "blanks": lambda told: [*told, b"\n"],
    "spaces within": lambda told: [told[0].replace(b": ", b":  ", 1), *told[1:]],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_records_taken_away_or_moved_are_noticed(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    for number in range(3):
        charge(ledger(path), number)
    lines(path, change)
    with pytest.raises(LedgerError):
        ledger(path)


def test_another_chain_that_is_whole_by_itself_is_noticed(path: Path, tmp_path: Path) -> None:
    for number in range(3):
        charge(ledger(path), number)
    other = tmp_path / "other.jsonl"
    for number in range(4):
        charge(ledger(other), number, noise=100.0)
    path.write_bytes(other.read_bytes())
    with pytest.raises(LedgerError, match="behind"):
        ledger(path)


def test_the_file_ahead_of_its_head_counts(path: Path) -> None:
    """A crash between the two: what stands in the file was paid, though nothing was released for it."""
    charge(ledger(path))
    head = path.with_name(path.name + ".head")
    before = head.read_bytes()
    charge(ledger(path), 2)
    head.write_bytes(before)
    book = ledger(path)
    assert book.spent() == truth(2)
    charge(book, 3)
    assert ledger(path).spent() == truth(3)


def test_both_files_put_back_are_noticed_by_what_the_audit_log_knows(path: Path) -> None:
    charge(ledger(path))
    head = path.with_name(path.name + ".head")
    older = path.read_bytes(), head.read_bytes()
    charge(ledger(path), 2)
    path.write_bytes(older[0])
    head.write_bytes(older[1])
    assert ledger(path).spent() == truth(1)  # by itself it cannot know
    with pytest.raises(LedgerError, match="audit log"):
        ledger(path, expect=2)
    path.unlink()
    head.unlink()
    with pytest.raises(LedgerError, match="audit log"):
        ledger(path, expect=2)


def test_a_full_disk_charges_nothing_and_leaves_a_whole_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = ledger(path)
    charge(book)
    usual = os.write

    def short(descriptor: int, data: bytes) -> int:
        return usual(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(chain.os, "write", short)
    with pytest.raises(OutputError, match="full"):
        charge(book, 2)
    monkeypatch.undo()
    assert book.spent() == truth(1)
    charge(book, 3)
    assert book.spent() == truth(2)


def test_the_charge_is_on_the_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    usual = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        usual(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    charge(ledger(path))
    line = synced.index(path.name)
    assert any(name.startswith(f".{path.name}.head") for name in synced[line:])  # the head after the record
    assert synced[-1] == path.parent.name


CHILD = """
import sys
from pathlib import Path
from fedser.privacy.ledger import Ledger
book = Ledger(Path(sys.argv[1]), "clinic", "site", 1e6, 1e-5)
for number in range(10_000):
    print(book.charge(5.0, 1.0, 1, study="study", round=number, attempt=0), flush=True)
"""


@pytest.mark.parametrize("after", [1, 4, 9])
def test_sigkill_never_leaves_less_than_was_released(path: Path, after: int) -> None:
    """What a killed process announced as charged is in the file; 200 points: ``benchmarks/privacy/ledger.py``."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(after):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        announced = after + len(child.stdout.read().splitlines())
    found = len(ledger(path, epsilon=1e6))
    assert announced <= found <= announced + 1
    charge(ledger(path, epsilon=1e6), found)


def forged(**changes: object) -> bytes:
    """A record with a right hash, and other contents."""
    record = {"site": "clinic", "unit": "site", "noise": 5.0, "rate": 1.0, "steps": 1, "before": chain.START, **changes}
    record["hash"] = chain.record_hash(record)
    return chain._line(record)


@pytest.mark.parametrize(
    "changes",
    [
        {"noise": 0.0},
        {"noise": -1.0},
        {"noise": "5"},
        {"noise": float("nan")},
        {"noise": float("inf")},
        {"noise": 10**400},
        {"rate": 2.0},
        {"rate": None},
        {"steps": -1},
        {"steps": 10**400},
        {"steps": 0.5},
        {"unit": 3},
        {"site": []},
    ],
    ids=str,
)
def test_a_whole_chain_of_records_that_nobody_writes_is_refused(path: Path, changes: dict[str, object]) -> None:
    charge(ledger(path))
    line = forged(**changes)
    path.write_bytes(line)
    path.with_name(path.name + ".head").write_text(chain._head(1, json.loads(line)["hash"]))
    with pytest.raises(LedgerError):
        ledger(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300), st.recursive(st.none() | st.text(), st.lists).map(lambda x: f"{x}\n".encode())
    ),
    head=st.one_of(st.binary(max_size=100), st.integers().map(lambda n: chain._head(n, chain.START).encode())),
)
def test_whatever_stands_there_only_own_errors_come_out(tmp_path: Path, data: bytes, head: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(data)
    path.with_name(path.name + ".head").write_bytes(head)
    if data or head != chain._head(0, chain.START).encode():
        with pytest.raises(LedgerError):
            ledger(path)


def test_a_ledger_in_memory_keeps_a_budget_and_no_file() -> None:
    book = ledger(None, epsilon=truth(2))
    charge(book, 1)
    charge(book, 2)
    with pytest.raises(BudgetError):
        charge(book, 3)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("x")
    with pytest.raises(OutputError):
        ledger(blocked / "ledger.jsonl")
