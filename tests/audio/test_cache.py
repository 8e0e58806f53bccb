from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedser.audio import cache
from fedser.audio.cache import FeatureCache, key
from fedser.audio.utterance import Utterance

NAME = "ab" + "0" * 62
ENTRY = np.arange(6, dtype=np.float32).reshape(2, 3)


def _store(base: Path) -> FeatureCache:
    return FeatureCache("kind-1", (2, 3), base)


def _file(base: Path) -> Path:
    return base / "kind-1" / "ab" / f"{NAME}.npy"


def test_entry_comes_back_as_a_read_only_map(tmp_path):
    store = _store(tmp_path / "cache")
    assert store.get(NAME) is None
    store.put(NAME, ENTRY)
    found = store.get(NAME)
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, ENTRY)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1.0


def test_only_the_owner_can_look_in(tmp_path):
    base = tmp_path / "cache"
    _store(base).put(NAME, ENTRY)
    for folder in (base, base / "kind-1", base / "kind-1" / "ab"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(_file(base).stat().st_mode) == 0o600
    assert [path.name for path in (base / "kind-1" / "ab").iterdir()] == [f"{NAME}.npy"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\x80\x04pickled" + data,
        lambda data: data.replace(b"<f4", b"|O8"),
        lambda data: data.replace(b"(2, 3)", b"(3, 2)"),
        lambda data: data[:-4] + np.float32("nan").tobytes(),
    ],
    ids=["empty", "short", "one byte less", "one byte more", "pickle", "objects", "other shape", "not a number"],
)
def test_damaged_entry_counts_as_missing_and_can_be_written_again(tmp_path, damage):
    store = _store(tmp_path)
    store.put(NAME, ENTRY)
    path = _file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert store.get(NAME) is None
    store.put(NAME, ENTRY)
    np.testing.assert_array_equal(store.get(NAME), ENTRY)


@given(position=st.integers(0, 127), value=st.integers(0, 255))
def test_no_flipped_byte_in_the_header_gets_through(tmp_path_factory, position, value):
    base = tmp_path_factory.getbasetemp() / "flipped"
    store = _store(base)
    store.put(NAME, ENTRY)
    data = bytearray(_file(base).read_bytes())
    changed = data[position] != value
    data[position] = value
    _file(base).write_bytes(bytes(data))
    assert (store.get(NAME) is None) == changed


def test_key_tells_recordings_parts_and_channels_apart():
    path = Path("a.wav")
    whole = key("d1", Utterance(path))
    assert whole == key("d1", Utterance(Path("elsewhere.flac"), emotion="anger", speaker="s"))
    others = [
        key("d2", Utterance(path)),
        key("d1", Utterance(path, start=0.0)),
        key("d1", Utterance(path, start=0.5)),
        key("d1", Utterance(path, end=0.5)),
        key("d1", Utterance(path, channel=0)),
        key("d1", Utterance(path, channel=1)),
    ]
    assert len({whole, *others}) == 7


def test_unwritable_place_is_said_once_and_costs_nothing_else(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    store = FeatureCache("kind-1", (2, 3), tmp_path / "file" / "cache")
    store.put(NAME, ENTRY)
    store.put(NAME, ENTRY)
    assert store.get(NAME) is None
    assert capsys.readouterr().err.count("not kept") == 1


def test_full_disk_is_said_once_and_costs_nothing_else(capsys):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full, which stands for a full disk")
    store = FeatureCache("kind-1", (2, 3), full)
    store.put(NAME, ENTRY)
    assert capsys.readouterr().err.count("not kept") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_read_only_folder_is_said_once(tmp_path, capsys):
    tmp_path.chmod(0o500)
    store = _store(tmp_path / "cache")
    store.put(NAME, ENTRY)
    store.put(NAME, ENTRY)
    tmp_path.chmod(0o700)
    assert capsys.readouterr().err.count("not kept") == 1


def test_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "own"
    monkeypatch.delenv("FEDSER_CACHE")
    assert cache.root() == tmp_path / "xdg" / "fedser"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.root() == tmp_path / ".cache" / "fedser"


def test_without_a_place_nothing_is_kept_and_nothing_fails(monkeypatch):
    monkeypatch.setattr(cache, "root", lambda: None)
    store = FeatureCache("kind-1", (2, 3))
    store.put(NAME, ENTRY)
    assert store.get(NAME) is None
