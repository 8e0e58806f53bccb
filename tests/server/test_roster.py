"""The roster under concurrent writers and after damage."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_server.roster import RefusedError, Roster
from fedser_server.state import State

from fedser.bundle.keys import SigningKey
from fedser.errors import EnrolmentError, StateError
from fedser.federation import enrolment
from fedser.federation.enrolment import EnrolRequest


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "provider", study="trial")


def asked(state: State, name: str, token: str) -> EnrolRequest:
    """A request with fresh keys."""
    node, reply = ec.generate_private_key(ec.SECP384R1()), SigningKey(Ed25519PrivateKey.generate())
    return enrolment.request(state.study, name, token, node, reply)


def test_a_site_from_invitation_to_revocation(state: State) -> None:
    roster = state.roster
    token = roster.invite("site-a", 60, now=1000)
    assert (roster.entries()["site-a"].status, roster.entries()["site-a"].expires) == ("invited", 1060)
    entry = roster.enrol(asked(state, "site-a", token), now=1030)
    assert (entry.status, entry.enrolled) == ("enrolled", 1030)
    assert roster.revoke("site-a", now=1040).revoked == 1040
    assert roster.revoke("site-a", now=2000).revoked == 1040
    with pytest.raises(EnrolmentError):
        roster.revoke("nobody")


def test_a_taken_name_is_refused_until_it_is_free(state: State) -> None:
    roster = state.roster
    first = roster.invite("site-a", 60, now=1000)
    with pytest.raises(EnrolmentError, match="taken"):
        roster.invite("site-a", 60, now=1060)
    second = roster.invite("site-a", 60, now=1061)  # the first was never used, and has expired
    assert first != second
    with pytest.raises(RefusedError):
        roster.enrol(asked(state, "site-a", first), now=1062)
    roster.enrol(asked(state, "site-a", second), now=1062)
    with pytest.raises(EnrolmentError, match="is enrolled") as caught:
        roster.invite("site-a", 60, now=10**6)
    assert "revoke site-a" in caught.value.hint
    roster.revoke("site-a")
    assert roster.invite("site-a", 60)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "-a", ".", "a" * 65, "a b", "a\n", "ä", "\0", "a;rm"])
def test_names_off_the_schema_are_refused(state: State, name: str) -> None:
    with pytest.raises(EnrolmentError, match="not a name"):
        state.roster.invite(name, 60)
    assert state.roster.entries() == {}


def test_tokens_are_128_bits_and_never_alike(state: State) -> None:
    tokens = {state.roster.invite(f"s{k}", 60) for k in range(50)}
    assert len(tokens) == 50
    assert {len(token) for token in tokens} == {22}


def test_another_process_change_is_seen(state: State) -> None:
    other = State.open(state.folder)
    assert state.roster.entries() == {}
    other.roster.invite("site-a", 60)
    assert list(state.roster.entries()) == ["site-a"]
    other.roster.revoke("site-a")
    assert state.roster.entries()["site-a"].status == "revoked"


def test_reading_is_cheap_while_nothing_changes(state: State) -> None:
    for k in range(100):
        state.roster.invite(f"s{k}", 60)
    state.roster.entries()
    start = time.perf_counter()
    for _ in range(1000):
        state.roster.entries()
    assert time.perf_counter() - start < 1


INVITING = """
import sys
from pathlib import Path
from fedser_server.state import State

roster = State.open(Path(sys.argv[1])).roster
for number in range(25):
    roster.invite(f"w{sys.argv[2]}-{number}", 60)
"""


def test_concurrent_processes_lose_nothing_and_never_tear_the_file(state: State) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", INVITING, state.folder, str(worker)]) for worker in range(4)]
    while any(worker.poll() is None for worker in workers):
        json.loads(state.roster.path.read_text())  # whole at every moment
        state.roster.entries()
    assert [worker.returncode for worker in workers] == [0] * 4
    assert set(state.roster.entries()) == {f"w{worker}-{k}" for worker in range(4) for k in range(25)}


def test_of_two_sites_with_one_invitation_one_enrols(state: State) -> None:
    token = state.roster.invite("site-a", 60)
    requests = [asked(state, "site-a", token) for _ in range(8)]
    outcomes: list[str] = []

    def enrol(request: EnrolRequest) -> None:
        try:
            outcomes.append(State.open(state.folder).roster.enrol(request).status)
        except RefusedError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=enrol, args=(request,)) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["enrolled"] + ["key"] * 7


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"sites": 3}',
        '{"fedser_sites": 2}',
        '{"fedser_sites": 1, "sites": [{"name": "a"}]}',
        "[" * 100_000,
        '{"fedser_sites": 1, "admin": true}',
    ],
)
def test_a_damaged_roster_says_what_to_do(state: State, damage: str) -> None:
    state.roster.path.write_text(damage)
    for attempt in (state.roster.entries, lambda: state.roster.invite("a", 60), lambda: state.roster.revoke("a")):
        with pytest.raises(StateError) as caught:
            attempt()
        assert "restore" in caught.value.hint
    assert state.roster.path.read_text() == damage  # evidence is not written over


def test_a_site_twice_or_without_keys_is_damage(state: State) -> None:
    state.roster.invite("site-a", 60)
    whole = json.loads(state.roster.path.read_text())
    for edit in ({"sites": whole["sites"] * 2}, {"sites": [whole["sites"][0] | {"status": "enrolled"}]}):
        state.roster.path.write_text(json.dumps(whole | edit))
        with pytest.raises(StateError):
            Roster(state.folder).entries()


def test_a_roster_open_to_others_or_missing_is_refused(state: State) -> None:
    assert stat.S_IMODE(state.roster.path.stat().st_mode) == 0o600
    state.roster.path.chmod(0o640)
    with pytest.raises(StateError, match="open to other users"):
        Roster(state.folder).entries()
    state.roster.path.unlink()
    with pytest.raises(StateError, match="missing"):
        state.roster.entries()
