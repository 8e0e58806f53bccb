"""The state folder: for its owner alone, one process at a time, damaged files are named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fedser_client import keys
from fedser_client.join import run
from fedser_client.patience import Patience
from fedser_client.state import SiteFolder

from fedser.errors import FedserError, KeyFileError, OutputError, StateError

HOLD = """
import sys, time
from pathlib import Path
from fedser_client.state import SiteFolder
with SiteFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = SiteFolder.make(tmp_path / "deep" / "state")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert not folder.joined


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701])
def test_a_folder_that_others_can_open_is_refused_with_the_command_to_run(folder: Any, mode: int) -> None:
    folder.path.chmod(mode)
    for opening in (SiteFolder.make, SiteFolder.open):
        with pytest.raises(StateError) as caught:
            opening(folder.path)
        assert caught.value.hint == f"Run: chmod 700 '{folder.path}'"


def test_what_is_no_state_folder_is_named(tmp_path: Path, folder: Any) -> None:
    with pytest.raises(StateError, match="no state folder"):
        SiteFolder.open(tmp_path / "nowhere")
    with pytest.raises(StateError, match="no study"):
        SiteFolder.open(folder.path)
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="not a folder"):
        SiteFolder.make(tmp_path / "file")


def test_settings_come_back_and_damaged_ones_are_refused(folder: Any, settings: Any) -> None:
    folder.remember(settings)
    assert folder.settings() == settings
    assert folder.file("site.json").stat().st_mode & 0o777 == 0o600
    assert settings.token not in repr(settings)
    whole = folder.file("site.json").read_text()
    for text in (whole[:-20], "[]", "{}", whole.replace('"study"', '"studies"'), "\0" * 10):
        folder.file("site.json").write_text(text)
        with pytest.raises(StateError, match="damaged"):
            folder.settings()


def test_a_folder_in_use_names_the_process(folder: Any) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.path], stdout=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert folder.holder() == other.pid
        with pytest.raises(StateError, match=f"process {other.pid}"), folder.lock():
            pass
    finally:
        other.kill()  # no goodbye: the lock must go all the same
        other.communicate()
    with folder.lock():
        assert folder.holder() == os.getpid()
    assert folder.holder() is None


def test_run_refuses_a_folder_in_use(folder: Any, settings: Any) -> None:
    folder.remember(settings)
    with folder.lock(), pytest.raises(StateError, match="in use"):
        run(folder.path, patience=Patience(0), command="", once=False)


def test_a_folder_that_cannot_be_written_is_an_error_of_its_own(folder: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        SiteFolder.make(tmp_path / "file" / "state")
    folder.file("lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError), folder.lock():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_keys_are_made_once_and_kept_for_their_owner(folder: Any) -> None:
    node, reply = keys.node_key(folder), keys.reply_key(folder)
    assert isinstance(node.curve, ec.SECP384R1)
    assert keys.node_key(folder).public_key() == node.public_key()
    assert keys.reply_key(folder).public_hex == reply.public_hex
    assert folder.file("keys").stat().st_mode & 0o777 == 0o700
    for name in ("node-key.pem", "reply-key"):
        assert (folder.file("keys") / name).stat().st_mode & 0o777 == 0o600
    other = SiteFolder.make(folder.path.parent / "other")
    assert keys.node_key(other).public_key() != node.public_key()


@pytest.mark.parametrize("name", ["node-key.pem", "reply-key"])
def test_damaged_and_open_keys_are_refused(folder: Any, name: str) -> None:
    read = keys.node_key if name == "node-key.pem" else keys.reply_key
    read(folder)
    path = folder.file("keys") / name
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="open to other users"):
        read(folder)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(KeyFileError):
        read(folder)


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that every user can enter, as pytest's own are not."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_a_second_user_gets_no_key_no_token_and_no_run(common: Path, settings: Any) -> None:
    folder = SiteFolder.make(common / "state")
    folder.remember(settings)
    keys.node_key(folder)
    keys.reply_key(folder)
    with folder.lock():
        pass
    code = f"""
import os
from pathlib import Path
os.setgroups([]); os.setgid(65534); os.setuid(65534)
state = Path({str(folder.path)!r})
for name in ("site.json", "keys/node-key.pem", "keys/reply-key", "lock"):
    try:
        (state / name).read_bytes()
    except PermissionError:
        continue
    print("READ", name)
try:
    os.listdir(state)
    print("LISTED")
except PermissionError:
    pass
"""
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    folder.path.chmod(0o777)  # even an opened folder keeps its secrets, and a node refuses to run on it
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "LISTED\n"
    os.chown(folder.path, 65534, 65534)
    folder.path.chmod(0o700)
    with pytest.raises(StateError, match="another user"):
        SiteFolder.open(folder.path)


def test_status_survives_nonsense(folder: Any) -> None:
    assert folder.status() == {}
    folder.tell(phase="waiting", orders=1)
    folder.tell(orders=2)
    assert folder.status() == {"phase": "waiting", "orders": 2}
    folder.file("status.json").write_text("{")
    assert folder.status() == {}
    folder.tell(orders=3)
    assert json.loads(folder.file("status.json").read_text()) == {"orders": 3}


def test_errors_are_the_projects_own() -> None:
    assert issubclass(StateError, FedserError)
    assert StateError.exit_code == 35
