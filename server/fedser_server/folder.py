"""Files of the provider's state folder: for their owner only, edited by one process at a time."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from fedser import lockfile
from fedser.errors import OutputError, StateError

RESTORE = "Restore the folder from a backup (fedser-server restore)."


def make_private(folder: Path) -> None:
    """Make a folder for its owner only, or check that an existing one is.

    Raises:
        StateError: it is no folder, belongs to somebody else, or is open to other users.
        OutputError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        about = folder.stat()
    except FileExistsError:
        raise StateError(f"{folder} is not a folder.", "Name a folder with --state.") from None
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {_reason(error)}.", "Choose a place to write to.") from None
    if about.st_uid != os.getuid():
        raise StateError(f"The state folder {folder} belongs to another user.", "Run the command as its owner.")
    if about.st_mode & 0o077:
        raise StateError(f"The state folder {folder} is open to other users.", f"Run: chmod 700 '{folder}'")


def read_private(path: Path, limit: int = 2**24) -> bytes:
    """A file's bytes, if nobody but its owner may open it.

    Raises:
        StateError: it is missing, is no plain file, is open to others, or is larger than ``limit`` bytes.
    """
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise StateError(f"{path} is not a file.", RESTORE)
            if about.st_mode & 0o077:
                raise StateError(f"{path} is open to other users.", f"Run: chmod 600 '{path}'")
            data = file.read(limit + 1)
    except OSError as error:
        raise StateError(f"{path} cannot be read: {_reason(error)}.", RESTORE) from None
    if len(data) > limit:
        raise StateError(f"{path} is larger than {limit} bytes.", RESTORE)
    return data


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder's edit lock: read, change and write its files without another process between.

    The lock is the kernel's: it goes with the process that holds it, whatever ends that.

    Raises:
        OutputError: the lock file cannot be made.
    """
    with lockfile.opened(folder / "edit.lock") as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def running(folder: Path) -> AbstractContextManager[None]:
    """Hold the folder as the one running node.

    Raises:
        StateError: another process holds it; the message names its id.
        OutputError: the lock file cannot be written.
    """
    return lockfile.held(folder / "lock", "Stop that one (fedser-server stop), or name another folder with --state.")


def holder(folder: Path) -> int | None:
    """The process that runs a node on this folder; None where no node runs."""
    return lockfile.holder(folder / "lock")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
