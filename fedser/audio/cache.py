"""A cache of features on disk, addressed by content.

An entry's name is a digest of the recording's bytes and of the part and channel that were used; its folder
is named after the features' version. So a changed recording, setting or algorithm never meets an old entry,
and renamed or copied recordings still do. Features are personal data: folders and files belong to their owner
only.

The cache can only save time. An entry that does not look as it must is computed again, and a place that
cannot be written is mentioned once and then left alone.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from fedser import console, files
from fedser.audio.utterance import Utterance
from fedser.errors import OutputError


def root() -> Path | None:
    """$FEDSER_CACHE, $XDG_CACHE_HOME/fedser or ~/.cache/fedser; None where there is no home."""
    if named := os.environ.get("FEDSER_CACHE"):
        return Path(named)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "fedser"
    try:
        return Path.home() / ".cache" / "fedser"
    except RuntimeError:
        return None


def key(digest: str, utterance: Utterance) -> str:
    """The name of an utterance's entry.

    Args:
        digest: SHA-256 of the recording's bytes, in hexadecimal digits.
        utterance: says which part and channel of the recording are meant.
    """
    parts = (digest, repr(utterance.start), repr(utterance.end), repr(utterance.channel))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()


class FeatureCache:
    """Entries of one kind of features.

    Args:
        version: what :func:`fedser.audio.features.version` says of the settings.
        shape: of one entry.
        base: the folder; None is :func:`root`.
    """

    def __init__(self, version: str, shape: tuple[int, ...], base: Path | None = None) -> None:
        base = base if base is not None else root()
        self._folders = [] if base is None else [base, base / version]
        self._shape = shape
        self._writable = base is not None
        self._header = _header(shape)
        self._size = len(self._header) + 4 * int(np.prod(shape))

    def get(self, name: str) -> np.ndarray | None:
        """An entry as a read-only memory map, or None where there is none or it is damaged."""
        if not self._folders:
            return None
        path = self._path(name)
        try:
            # Before numpy parses anything: the file has to begin as the one that this cache writes.
            with path.open("rb") as file:
                if file.read(len(self._header)) != self._header or os.fstat(file.fileno()).st_size != self._size:
                    return None
            entry: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return entry if np.isfinite(entry).all() else None

    def put(self, name: str, entry: np.ndarray) -> None:
        """Keep an entry (float32, of the cache's shape); a failure is mentioned once and does no harm."""
        if not self._writable:
            return
        path = self._path(name)
        try:
            for folder in (*self._folders, path.parent):
                _own(folder)
            with files.replacing(path, mode=0o600) as scratch, scratch.open("wb") as file:
                np.save(file, np.ascontiguousarray(entry, dtype="<f4"), allow_pickle=False)
        except (OSError, OutputError) as error:
            self._writable = False
            reason = str(error) if isinstance(error, OutputError) else f"{path.parent}: {error.strerror or error}."
            console.say(f"note: features are not kept for the next run: {reason} Set FEDSER_CACHE to another place.")

    def drop(self, name: str) -> bool:
        """Delete an entry; whether there was one."""
        try:
            self._path(name).unlink()
        except (OSError, IndexError):
            return False
        return True

    def _path(self, name: str) -> Path:
        return self._folders[-1] / name[:2] / f"{name}.npy"


def _header(shape: tuple[int, ...]) -> bytes:
    """The first bytes of every entry of this shape."""
    buffer = io.BytesIO()
    layout = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, layout)
    return buffer.getvalue()


def _own(folder: Path) -> None:
    """Make a folder for its owner only; one that is there keeps its permissions."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
