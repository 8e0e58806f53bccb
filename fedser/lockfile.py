"""One process at a time: a lock file that names its holder, and goes with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fedser.errors import OutputError, StateError

UNNAMED = -1  # stands for a holder that has not told its process id yet


@contextmanager
def held(path: Path, hint: str) -> Iterator[None]:
    """Hold a state folder by its lock file.

    The lock is the kernel's: it goes with the process that holds it, whatever ends that.

    Args:
        path: of the lock file in the folder; made for its owner only when missing.
        hint: what to do where another process holds it.

    Raises:
        StateError: another process does; the message names its id.
        OutputError: the lock file cannot be written.
    """
    with opened(path) as descriptor:
        if not _taken(descriptor):
            named = _pid(descriptor) or "(unknown)"
            raise StateError(f"The state folder {path.parent} is in use by process {named}.", hint)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{path.parent} cannot be written: {reason}.", "Make room on its disk.") from None
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)


def holder(path: Path) -> int | None:
    """The process that holds a lock file, or ``UNNAMED``; None where nobody does."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(descriptor) or UNNAMED
    finally:
        os.close(descriptor)
    return None


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a lock file, made for its owner only when missing.

    Raises:
        OutputError: it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{path} cannot be opened: {reason}.", "Check the folder's permissions.") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    """Take the lock; a look by :func:`holder` may be in the way for a moment."""
    for wait in (0.05, 0.1, 0.2, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is not None:
                time.sleep(wait)
        else:
            return True
    return False


def _pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode("ascii", errors="replace").strip()
    return int(text) if text.isdigit() else None
