"""Checkpoints: what was saved comes back bit for bit, damage never does, and orders in flight keep their bytes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fedser_server import checkpoint as checkpoints
from fedser_server.checkpoint import Checkpoint, Checkpoints, goes_with
from fedser_server.settings import StudySettings
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fedser.errors import OutputError, StateError
from fedser.federation.provider import Flight
from fedser.federation.stages import ServerState

SETTLED = "0" * 64


def made(number: int, values: int = 50, momentum: bool = True) -> Checkpoint:
    draw = torch.Generator().manual_seed(number)
    flat = torch.randn(values, generator=draw)
    velocity = torch.randn(values, generator=draw) if momentum else None
    return Checkpoint(number, flat, ServerState(velocity, None))


def same(first: Checkpoint | None, second: Checkpoint) -> bool:
    assert first is not None
    pairs = [(first.flat, second.flat), (first.state.velocity, second.state.velocity)]
    pairs.append((first.state.second, second.state.second))
    return first.round == second.round and all(
        (a is None and b is None) or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs
    )


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    tmp_path.chmod(0o700)
    return Checkpoints(tmp_path, "study", SETTLED)


def test_what_was_saved_comes_back(store: Checkpoints) -> None:
    assert store.load() is None
    for number, state in ((1, ServerState()), (2, ServerState(torch.ones(50))), (3, ServerState(None, torch.ones(50)))):
        told = Checkpoint(number, made(number).flat, state)
        path = store.save(told)
        assert same(store.load(), told)
        assert path.stat().st_mode & 0o777 == 0o600


def test_special_values_keep_their_bits(store: Checkpoints) -> None:
    flat = torch.tensor([0.0, -0.0, 1e-45, 3.4e38, 0.1])
    store.save(Checkpoint(1, flat, ServerState()))
    found = store.load()
    assert found is not None
    assert found.flat.numpy().tobytes() == flat.numpy().tobytes()


def test_two_are_kept(store: Checkpoints, tmp_path: Path) -> None:
    for number in range(1, 13):
        store.save(made(number))
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["round-000011.safetensors", "round-000012.safetensors"]


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def metadata(change: Callable[[dict[str, object]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            entry = json.loads(file.metadata()["fedser"])
        change(entry)
        save_file(load_file(path), path, metadata={"fedser": json.dumps(entry)})

    return damage


def resaved(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            told = file.metadata()
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, metadata=told)

    return damage


DAMAGE: dict[str, Callable[[Path], object]] = {
    "torn in the tensors": lambda p: os.truncate(p, p.stat().st_size - 5),
    "torn in the header": lambda p: os.truncate(p, 20),
    "empty": lambda p: p.write_bytes(b""),
    "a flipped bit": flipped,
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "longer": lambda p: p.write_bytes(p.read_bytes() + b"x"),
    "text": lambda p: p.write_text("not a checkpoint"),
    "no entry": lambda p: save_file(load_file(p), p),
    "an entry that is no JSON": lambda p: save_file(load_file(p), p, metadata={"fedser": "{"}),
    "an entry that is a list": lambda p: save_file(load_file(p), p, metadata={"fedser": "[]"}),
    "another round": metadata(lambda e: e.update(round=1)),
    "round zero": metadata(lambda e: e.update(round=0)),
    "another digest": metadata(lambda e: e.update(sha256="0" * 64)),
    "no digest": metadata(lambda e: e.pop("sha256")),
    "a field more": metadata(lambda e: e.update(extra=1)),
    "a newer schema": metadata(lambda e: e.update(schema_version=2)),
    "another study, unsealed": metadata(lambda e: e.update(study="other")),
    "another value": resaved(lambda t: t["flat"].add_(1e-6)),
    "a tensor less": resaved(lambda t: t.pop("velocity")),
    "a tensor more": resaved(lambda t: t.update(second=torch.ones(50))),
    "another type": resaved(lambda t: t.update(flat=t["flat"].half())),
    "another shape": resaved(lambda t: t.update(flat=t["flat"].reshape(5, 10))),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_noticed_and_the_one_before_is_taken(store: Checkpoints, name: str) -> None:
    older, newer = made(4), made(5)
    first, second = store.save(older), store.save(newer)
    DAMAGE[name](second)
    assert same(store.load(), older)
    DAMAGE[name](first)
    if name != "another round":  # the first one's round is unlike another
        with pytest.raises(StateError, match="damaged") as caught:
            store.load()
        assert "backup" in caught.value.hint


def test_another_round_in_the_name_is_not_believed(store: Checkpoints, tmp_path: Path) -> None:
    path = store.save(made(4))
    path.rename(path.with_name("round-000009.safetensors"))
    found = store.load()
    assert found is not None
    assert found.round == 4


@pytest.mark.parametrize(("study", "settled"), [("other", SETTLED), ("study", "1" * 64)])
def test_another_studys_or_other_settings_are_refused(
    store: Checkpoints, tmp_path: Path, study: str, settled: str
) -> None:
    store.save(made(2))
    with pytest.raises(StateError, match="other settings") as caught:
        Checkpoints(tmp_path, study, settled).load()
    assert "same settings" in caught.value.hint


def test_what_decides_the_result_decides_what_goes_with_it() -> None:
    plain = StudySettings()
    same_result = [{"deadline": 5.0}, {"patience": 20.0}, {"lifetime": 60}, {"sites": 5}, {"quorum": 1}]
    other_result = [
        {"seed": 1},
        {"rounds": 6},
        {"method": {"name": "shot"}},
        {"personal": 0.1},
        {"leave": "head"},
        {"utterances": 10},
        {"largest_norm": 1.0},
        {"aggregation": {"rule": "median"}},
        {"schedule": {"steps": 9}},
    ]
    digest = goes_with(plain.science(), "bundle")
    for change in same_result:
        assert goes_with(StudySettings.model_validate(change).science(), "bundle") == digest, change
    found = {goes_with(StudySettings.model_validate(change).science(), "bundle") for change in other_result}
    assert len(found | {digest, goes_with(plain.science(), "other")}) == len(other_result) + 2


def test_a_folder_open_to_others_is_refused(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").chmod(0o755)
    with pytest.raises(StateError, match="open to other users"):
        Checkpoints(tmp_path, "study", SETTLED)


# --- flights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000_000.0]
    monkeypatch.setattr(checkpoints.time, "time", lambda: now[0])
    return now


def test_orders_of_one_try_are_the_same_after_a_restart(store: Checkpoints, tmp_path: Path, clock: list[float]) -> None:
    first = store.flight(1, 600)
    assert first == Flight(0, 1_000_600)
    clock[0] += 500
    assert Checkpoints(tmp_path, "study", SETTLED).flight(1, 900) == first
    assert (tmp_path / "flight.json").stat().st_mode & 0o777 == 0o600


def test_orders_that_expire_are_sent_anew_with_a_larger_attempt(store: Checkpoints, clock: list[float]) -> None:
    store.flight(1, 600)
    clock[0] += 541
    assert store.flight(1, 600) == Flight(1, 1_001_141)
    clock[0] += 10_000
    assert store.flight(1, 600).attempt == 2


def test_the_attempt_never_falls_back(store: Checkpoints, clock: list[float]) -> None:
    """A round that is run again, since the checkpoint after it was lost, needs orders that its sites have not seen."""
    assert store.flight(1, 600).attempt == 0
    assert store.flight(2, 600).attempt == 0
    clock[0] += 1000
    assert store.flight(2, 600).attempt == 1
    assert store.flight(3, 600).attempt == 1
    again = store.flight(2, 600)
    assert again.attempt == 2
    assert store.flight(2, 600) == again


@pytest.mark.parametrize("text", ["", "{", "[]", '{"round": 1}', '{"round": 0, "attempt": 0, "expires": 1}', "null"])
def test_a_damaged_flight_stops_the_node(store: Checkpoints, tmp_path: Path, text: str) -> None:
    """Guessing an attempt could have a round computed twice."""
    path = tmp_path / "flight.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StateError, match="damaged"):
        store.flight(1, 600)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 700)), max_size=8))
def test_no_two_flights_of_a_round_differ_and_share_an_attempt(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[int, int]]
) -> None:
    now = [1_000_000.0]
    monkeypatch.setattr(checkpoints.time, "time", lambda: now[0])
    folder = tmp_path_factory.mktemp("flights")
    seen: dict[tuple[int, int], int] = {}
    for number, wait in steps:
        now[0] += wait
        flight = Checkpoints(folder, "study", SETTLED).flight(number, 600)
        assert seen.setdefault((number, flight.attempt), flight.expires) == flight.expires


# --- places that cannot be written -----------------------------------------------------------------------------------

FULL = """
import resource, sys, torch
from pathlib import Path
from fedser.errors import OutputError
from fedser.federation.stages import ServerState
from fedser_server.checkpoint import Checkpoint, Checkpoints
store = Checkpoints(Path(sys.argv[1]), "study", "0" * 64)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # the disk is full after 20 kB
store.save(Checkpoint(1, torch.ones(100), ServerState()))
store.flight(2, 600)
try:
    store.save(Checkpoint(2, torch.ones(100_000), ServerState()))
except OutputError as error:
    print(error, error.hint)
    sys.exit(error.exit_code)
"""


def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 40, done.stderr
    assert "round-000002.safetensors cannot be written" in done.stdout
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["round-000001.safetensors"]
    found = Checkpoints(tmp_path, "study", SETTLED).load()
    assert found is not None
    assert found.round == 1


def test_a_full_disk_sends_no_order(store: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OutputError, match="flight.json cannot be written"):
            store.flight(1, 600)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "flight.json").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="root writes to read-only folders")
def test_a_read_only_folder_is_a_clear_error(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permission denied"):
            store.save(made(1))
    finally:
        (tmp_path / "checkpoints").chmod(0o700)


def test_a_folder_that_is_gone_is_a_clear_error(store: Checkpoints, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("a file in its place")
    with pytest.raises(OutputError, match="cannot be written"):
        store.save(made(1))
