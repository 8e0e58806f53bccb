"""Backup and restore: what goes in comes out, and a hostile archive makes nothing."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fedser_server import archive
from fedser_server.cli import app
from fedser_server.state import State
from typer.testing import CliRunner

from fedser.errors import FedserError, OutputError, StateError


@pytest.fixture
def state(tmp_path: Path) -> State:
    made = State.open(tmp_path / "provider", study="trial")
    made.roster.invite("site-a", 60)
    made.renew_ca()
    made.renew_order_key()
    (made.folder / "checkpoints").mkdir()
    (made.folder / "checkpoints" / "round-000001.safetensors").write_bytes(b"weights" * 1000)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    locks = {"lock", "edit.lock"}
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in locks}


def test_what_goes_in_comes_out(state: State, tmp_path: Path) -> None:
    count, size = archive.write(state.folder, tmp_path / "b.tar")
    assert stat.S_IMODE((tmp_path / "b.tar").stat().st_mode) == 0o600
    study, restored = archive.read(tmp_path / "b.tar", tmp_path / "again")
    assert (study, restored) == ("trial", count)
    assert contents(tmp_path / "again") == contents(state.folder)
    assert size == sum(len(data) for data in contents(state.folder).values())
    again = State.open(tmp_path / "again", study="trial")
    assert again.order_key.public_hex == state.order_key.public_hex
    assert again.trust == state.trust
    assert again.roster.entries() == state.roster.entries()
    for path in [again.folder, *again.folder.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0 or path.suffix in (".pub", ".pem"), path


def test_through_the_commands(state: State, tmp_path: Path) -> None:
    words = ["backup", str(tmp_path / "b.tar"), "--state", str(state.folder), "--format", "json"]
    told = json.loads(CliRunner().invoke(app, words).stdout)
    words = ["restore", str(tmp_path / "b.tar"), "--state", str(tmp_path / "again"), "--format", "json"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["files"] == told["files"]


def test_a_backup_waits_for_no_node_and_overwrites_nothing(state: State, tmp_path: Path) -> None:
    with state.lock(), pytest.raises(StateError, match=f"process {os.getpid()}"):
        archive.write(state.folder, tmp_path / "b.tar")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError):
        archive.write(state.folder, tmp_path / "taken")
    with pytest.raises(OutputError, match="inside"):
        archive.write(state.folder, state.folder / "keys" / "b.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["provider", "taken"]


def test_links_in_the_folder_are_not_followed(state: State, tmp_path: Path) -> None:
    (tmp_path / "private").write_text("somebody else's")
    (state.folder / "checkpoints" / "link").symlink_to(tmp_path / "private")
    archive.write(state.folder, tmp_path / "b.tar")
    assert b"somebody else's" not in (tmp_path / "b.tar").read_bytes()


def test_a_restored_folder_replaces_nothing(state: State, tmp_path: Path) -> None:
    archive.write(state.folder, tmp_path / "b.tar")
    before = contents(state.folder)
    with pytest.raises(StateError, match="not empty"):
        archive.read(tmp_path / "b.tar", state.folder)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError):
        archive.read(tmp_path / "b.tar", tmp_path / "link")
    assert contents(state.folder) == before
    (tmp_path / "empty").mkdir()
    assert archive.read(tmp_path / "b.tar", tmp_path / "empty")[0] == "trial"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def _put(*members: tarfile.TarInfo, data: bytes = b"") -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with tarfile.open(path, "a") as tar:
            for info in members:
                info.size = len(data) if info.isreg() else 0
                tar.addfile(info, io.BytesIO(data))

    return change


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _of_one_file(name: str) -> Callable[[Path], None]:
    """Leave one file out."""

    def change(path: Path) -> None:
        with tarfile.open(path) as tar:
            kept = [(info, (tar.extractfile(info) or io.BytesIO()).read()) for info in tar if info.name != name]
        with tarfile.open(path, "w") as tar:
            for info, data in kept:
                tar.addfile(info, io.BytesIO(data))

    return change


def _gigantic(path: Path) -> None:
    info = member("big")
    info.size = 2**50
    path.write_bytes(info.tobuf() + bytes(1024))


HOSTILE: dict[str, Callable[[Path], None]] = {
    "an absolute path": _put(member("/tmp/fedser-owned"), data=b"x"),  # noqa: S108
    "a way up": _put(member("../owned"), data=b"x"),
    "a hidden way up": _put(member("keys/../../owned"), data=b"x"),
    "a symbolic link": _put(member("way", tarfile.SYMTYPE, "..")),
    "a file through a link": _put(member("way", tarfile.SYMTYPE, ".."), member("way/owned"), data=b"x"),
    "a hard link": _put(member("way", tarfile.LNKTYPE, "keys/order-key")),
    "a device": _put(member("null", tarfile.CHRTYPE)),
    "a pipe": _put(member("pipe", tarfile.FIFOTYPE)),
    "a file twice": _put(member("sites.json"), data=b"{}"),
    "a file where a folder is": _put(member("keys"), data=b"x"),
    "no name": _put(member("."), data=b"x"),
    "a truncated archive": _cut,
    "no archive": lambda path: path.write_bytes(b"hello" * 1000),
    "an empty file": lambda path: path.write_bytes(b""),
    "a compressed archive": lambda path: path.write_bytes(__import__("gzip").compress(path.read_bytes())),
    "a petabyte": _gigantic,
    "no study": _of_one_file("study.json"),
    "no roster": _of_one_file("sites.json"),
    "no order key": _of_one_file("keys/order-key"),
    "no authority": _of_one_file("tls/authority.pem"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_archive_makes_nothing(state: State, tmp_path: Path, name: str) -> None:
    place = tmp_path / "deep" / "place"
    place.mkdir(parents=True)
    archive.write(state.folder, tmp_path / "b.tar")
    HOSTILE[name](tmp_path / "b.tar")
    with pytest.raises(FedserError) as caught:
        archive.read(tmp_path / "b.tar", place / "again")
    assert caught.value.hint
    assert list(place.iterdir()) == []
    assert list(place.parent.iterdir()) == [place]
    assert not Path("/tmp/fedser-owned").exists()  # noqa: S108


def test_no_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="There is no file"):
        archive.read(tmp_path / "none.tar", tmp_path / "again")
