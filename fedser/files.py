"""Writing results so that a crash or Ctrl-C never leaves a half-written file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fedser.errors import OutputError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it replaces ``path`` in one step, else it goes.

    Args:
        path: the file to write; missing parent folders are made.
        mode: permission bits of the result (0o600 for secrets; set before anything is written).

    Raises:
        OutputError: the place cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    except OSError as error:
        raise _refused(path, error) from None
    try:
        yield scratch
        with scratch.open("rb") as written:
            os.fsync(written.fileno())
        scratch.replace(path)
    except OSError as error:
        raise _refused(path, error) from None
    finally:
        scratch.unlink(missing_ok=True)


def write_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a text file (UTF-8) in one step.

    Raises:
        OutputError: the place cannot be written.
    """
    with replacing(path, mode) as scratch:
        scratch.write_text(text, encoding="utf-8")


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a binary file in one step.

    Raises:
        OutputError: the place cannot be written.
    """
    with replacing(path, mode) as scratch:
        scratch.write_bytes(data)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None, mode: int) -> None:
    """Write a safetensors file in one step.

    Raises:
        OutputError: the place cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        with replacing(path, mode) as scratch:
            save_file(dict(tensors), scratch, metadata=metadata)
            scratch.chmod(mode)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OutputError(f"{path} cannot be written: {error}.", "Free some space, and try again.") from None


def output_folder(path: Path) -> Path:
    """Make a folder for results and check at once, before any work, that it can be written.

    Raises:
        OutputError: it cannot.
    """
    probe = path / f".{secrets.token_hex(6)}.probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _refused(path, error) from None
    return path


def _refused(path: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{path} cannot be written: {reason}.", "Choose a place with write permission and free space.")
