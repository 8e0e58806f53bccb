"""The provider's state folder: whole after a crash, the owner's alone, one node at a time."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from fedser_server import keeping
from fedser_server.folder import holder
from fedser_server.state import DEFAULT_ADDRESS, State

from fedser.bundle import keys
from fedser.errors import ConfigError, FedserError, StateError
from fedser.federation import trust


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "provider", study="trial")


def test_a_new_folder_is_whole_and_stays_the_same(state: State) -> None:
    again = State.open(state.folder)
    assert (again.study, again.ca) == (state.study, state.ca)
    assert again.order_key.public_hex == state.order_key.public_hex
    assert state.study == "trial"
    assert state.address == DEFAULT_ADDRESS
    assert state.trust == []
    assert {"localhost", "127.0.0.1", "::1"} <= set(state.hosts)


def test_everything_is_the_owners_alone(state: State) -> None:
    state.renew_ca()
    state.renew_order_key()
    public = {"order-key.pub", "ca.pem"}
    for path in [state.folder, *state.folder.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert path.name in public or mode & 0o077 == 0, path


def test_under_an_open_umask_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        test_everything_is_the_owners_alone(State.open(tmp_path / "provider"))
    finally:
        os.umask(before)


def test_a_folder_open_to_others_is_refused_with_the_command_to_run(state: State) -> None:
    for mode in (0o750, 0o701, 0o770):
        state.folder.chmod(mode)
        with pytest.raises(StateError) as caught:
            State.open(state.folder)
        assert caught.value.hint == f"Run: chmod 700 '{state.folder}'"
    state.folder.chmod(0o700)
    for name in ("keys/order-key", "tls/authority.pem", "study.json", "sites.json"):
        (state.folder / name).chmod(0o644)
        with pytest.raises(FedserError) as refused:
            State.open(state.folder)
        assert f"chmod 600 '{state.folder / name}'" in refused.value.hint
        (state.folder / name).chmod(0o600)
    State.open(state.folder)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to act as another user")
def test_a_second_user_gets_nothing(state: State) -> None:
    state.folder.parent.chmod(0o755)
    secrets = [str(path) for path in state.folder.rglob("*") if path.is_file()]
    code = "import os, sys\nos.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    code += "for path in sys.argv[1:]:\n    try:\n        open(path)\n    except OSError: pass\n    else: print(path)\n"
    done = subprocess.run([sys.executable, "-c", code, *secrets], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    shutil.chown(state.folder, 65534)
    with pytest.raises(StateError, match="another user"):
        State.open(state.folder)


def test_another_study_and_no_folder(state: State, tmp_path: Path) -> None:
    assert State.open(state.folder, study="trial").study == "trial"
    with pytest.raises(StateError, match="belongs to the study trial"):
        State.open(state.folder, study="other")
    with pytest.raises(StateError, match="no provider's state folder"):
        State.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError):
        State.open(tmp_path / "bad", study="../x")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "letter.txt").write_text("mine")
    with pytest.raises(StateError, match=r"letter\.txt"):
        State.open(home)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="not a folder"):
        State.open(tmp_path / "file")


READ_ONLY = """
import os, sys
from pathlib import Path
from fedser.errors import OutputError
from fedser_server.state import State

warm = State.open(Path(sys.argv[2]) / "warm")  # what is imported late must come before another user's eyes look
warm.roster.invite("site-a", 60), warm.remember(address="a.example:1"), warm.renew_order_key()
if os.getuid() == 0:  # root may write everywhere
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
folder = Path(sys.argv[1])
state = State.open(folder / "provider")
(folder / "provider").chmod(0o500)
folder.chmod(0o500)
for attempt in (
    lambda: state.roster.invite("site-a", 60),
    lambda: state.remember(address="a.example:1"),
    state.renew_order_key,
    lambda: State.open(folder / "another"),
):
    try:
        attempt()
    except OutputError as error:
        assert "permission denied" in str(error) and error.hint
        print("refused")
print(state.roster.entries(), state.trust)
"""


def test_a_read_only_state_is_a_clear_error(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp())  # where another user may go, unlike pytest's folders
    try:
        if os.getuid() == 0:
            os.chown(home, 65534, 65534)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, home, tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(home)
    assert done.stdout.splitlines() == ["refused"] * 3 + ["refused", "{} []"]


FULL = """
import os, resource, signal, sys
from pathlib import Path
from fedser.errors import OutputError
from fedser_server.state import State

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
if sys.argv[3] != "create":
    state = State.open(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    {
        "create": lambda: State.open(folder),
        "invite": lambda: state.roster.invite("site-b", 60),
        "renew_ca": lambda: state.renew_ca(),
        "renew_order_key": lambda: state.renew_order_key(),
    }[sys.argv[3]]()
except OutputError as error:
    assert error.hint
    print("refused")
"""


@pytest.mark.parametrize("limit", [0, 300])
@pytest.mark.parametrize("action", ["create", "invite", "renew_ca", "renew_order_key"])
def test_a_full_disk_is_a_clear_error_and_the_state_stays_whole(tmp_path: Path, action: str, limit: int) -> None:
    """No file can grow beyond ``limit`` bytes, as on a disk that is full at that point."""
    folder = tmp_path / "provider"
    if action != "create":
        before = State.open(folder)
        for name in ("site-a", "site-x"):
            before.roster.invite(name, 60)
        entries, pinned, ca = before.roster.entries(), before.order_key.public_hex, before.ca
    done = subprocess.run(
        [sys.executable, "-c", FULL, folder, str(limit), action], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"
    state = State.open(folder)
    if action == "create":
        return
    assert state.roster.entries() == entries
    assert trust.walk(pinned, state.trust, ca=ca).order_key == state.order_key.public_hex
    state.renew_ca()
    state.renew_order_key()
    assert trust.walk(pinned, state.trust, ca=ca).order_key == state.order_key.public_hex


def test_a_lost_study_beside_a_nodes_files_is_damage(state: State) -> None:
    state.roster.invite("site-a", 60)
    (state.folder / "events.jsonl").touch()
    (state.folder / "study.json").unlink()
    with pytest.raises(StateError, match=r"study\.json is missing"):
        State.open(state.folder)


@pytest.mark.parametrize("name", ["study.json", "trust.jsonl", "tls/authority.pem", "keys/order-key"])
@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\x00" * 50])
def test_damage_is_an_error_that_says_what_to_do(state: State, name: str, damage: bytes) -> None:
    state.renew_ca()
    (state.folder / name).write_bytes(damage)
    with pytest.raises(FedserError) as caught:
        State.open(state.folder)
    assert caught.value.hint
    assert (state.folder / name).read_bytes() == damage


def test_a_lost_study_with_sites_is_no_new_study(state: State) -> None:
    state.roster.invite("site-a", 60)
    (state.folder / "study.json").unlink()
    with pytest.raises(StateError, match=r"study\.json is missing"):
        State.open(state.folder)


def test_another_order_key_than_the_chain_ends_at_is_damage(state: State) -> None:
    old = (state.folder / "keys" / "order-key").read_bytes()
    state.renew_order_key()
    (state.folder / "keys" / "order-key").write_bytes(old)
    with pytest.raises(StateError, match="chain of renewals"):
        State.open(state.folder)


def test_sites_walk_every_renewal(state: State) -> None:
    pinned, ca = state.order_key.public_hex, state.ca
    seen = trust.walk(pinned, state.trust, ca=ca)
    for renew in (state.renew_order_key, state.renew_ca, state.renew_certificate, state.renew_order_key):
        renew()
        seen = trust.walk(pinned, state.trust, ca=ca, seen=seen)
        assert (seen.order_key, seen.cas[-1]) == (State.open(state.folder).order_key.public_hex, state.ca)
    assert seen.sequence == 3  # a server certificate is nobody's to learn


def test_own_authorities_are_announced(state: State) -> None:
    pinned, ca = state.order_key.public_hex, state.ca
    own = State.open(state.folder.parent / "elsewhere").ca
    assert state.use_ca(own)
    assert not state.use_ca(own)
    assert state.ca == own
    assert trust.walk(pinned, state.trust, ca=ca).cas == (ca, own)
    assert state.use_ca(None)
    assert state.ca == ca


def test_what_invitations_name_is_remembered(state: State) -> None:
    state.remember(address="a.example:1", bundle_key="ab" * 32)
    state.remember(address="[2001:db8::1]:2", bundle_key="cd" * 32)
    state.remember(bundle_key="ab" * 32)
    assert state.address == "[2001:db8::1]:2"
    assert state.file.bundle_keys == ("cd" * 32, "ab" * 32)
    assert {"a.example", "2001:db8::1"} <= set(state.hosts)
    for wrong in ("nothing", "host:0", "http://host:1", "a b:1", ":1"):
        with pytest.raises(ConfigError):
            state.remember(address=wrong)


def test_one_node_at_a_time_and_its_process_is_named(state: State) -> None:
    assert state.running is None
    with state.lock():
        assert state.running == os.getpid()
        with pytest.raises(StateError, match=f"process {os.getpid()}"), State.open(state.folder).lock():
            pass
        with pytest.raises(StateError, match="in use"):
            state.renew_order_key()
    assert state.running is None
    with state.lock():
        pass


def test_a_killed_node_holds_nothing(state: State) -> None:
    code = "import sys, time\nfrom pathlib import Path\nfrom fedser_server.state import State\n"
    code += "with State.open(Path(sys.argv[1])).lock():\n    print('held', flush=True)\n    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code, str(state.folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert holder(state.folder) == other.pid
        other.send_signal(signal.SIGKILL)
        other.wait()
    with state.lock():
        assert holder(state.folder) == os.getpid()


CRASHING = """
import os, sys
from pathlib import Path
from fedser import files
from fedser_server.state import State

limit, count = int(sys.argv[2]), 0

def crash(event, arguments):
    global count
    if event in ("os.rename", "os.mkdir", "open") and str(sys.argv[1]) in str(arguments[0]):
        count += 1
        if count > limit:
            os._exit(9)

folder = Path(sys.argv[1])
if sys.argv[3] != "create":
    state = State.open(folder)
sys.addaudithook(crash)
if sys.argv[3] == "create":
    State.open(folder, study="trial")
else:
    getattr(state, sys.argv[3])()
"""


@pytest.mark.parametrize("action", ["create", "renew_ca", "renew_order_key"])
def test_a_crash_at_any_point_leaves_a_folder_that_opens(tmp_path: Path, action: str) -> None:
    """End the process before each of its file operations in turn; afterwards everything works."""
    for limit in range(0, 60, 3 if action == "create" else 2):
        folder = tmp_path / f"{action}-{limit}"
        if action != "create":
            before = State.open(folder, study="trial")
            pinned, ca = before.order_key.public_hex, before.ca
        done = subprocess.run([sys.executable, "-c", CRASHING, str(folder), str(limit), action], check=False)
        state = State.open(folder, study="trial")
        state.certificates()
        if action != "create":
            trusted = trust.walk(pinned, state.trust, ca=ca)
            assert trusted.order_key == state.order_key.public_hex
            assert state.ca in trusted.cas
            state.renew_ca()
            state.renew_order_key()
            assert trust.walk(pinned, state.trust, ca=ca, seen=trusted).order_key == state.order_key.public_hex
        if done.returncode == 0:
            break
    assert done.returncode == 0, "the last try has to run through"


def test_half_a_key_of_an_unfinished_folder_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "provider"
    (folder / "keys").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "keys" / "order-key").touch(mode=0o600)
    assert keys.load(keeping.order_key_path(State.open(folder).folder))


def test_opening_is_quick(state: State) -> None:
    start = time.perf_counter()
    State.open(state.folder)
    assert time.perf_counter() - start < 1


def test_the_package_imports_no_torch() -> None:
    names = "state, roster, tls, enrolment, publish, cli"
    code = f"from fedser_server import {names}; import sys; print([m for m in ('torch', 'flwr') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
