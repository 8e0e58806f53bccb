"""Backup of a state folder: a plain tar file, read back as if somebody hostile had written it.

Only plain files and folders go in and come out. Reading takes no owner, no permission and no link from the
archive, and a state folder appears only once all of it is there and opens.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fedser import files
from fedser.errors import OutputError, StateError
from fedser_server.folder import exclusive, make_private
from fedser_server.state import State

_LEFT_OUT = {"lock", "edit.lock"}
_MAX_FILES, _MAX_BYTES = 10_000, 64 * 2**30
_HINT = "Name a file that fedser-server backup wrote."


def write(folder: Path, file: Path) -> tuple[int, int]:
    """Write a backup.

    Returns:
        The number of files in it, and their bytes.

    Raises:
        StateError: a node runs on the folder, or it is damaged.
        OutputError: the file exists, lies inside the folder, or cannot be written.
    """
    state = State.open(folder, create=False)
    if file.exists() or file.is_symlink():
        raise OutputError(f"{file} exists already.", "Choose another name: a backup is never written over.")
    if file.absolute().parent.resolve().is_relative_to(folder.resolve()):
        raise OutputError(f"{file} lies inside the state folder.", "Choose a place outside it.")
    count = size = 0
    with (
        state.lock(),
        exclusive(folder),
        files.replacing(file, mode=0o600) as scratch,
        tarfile.open(scratch, "w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in _plain_files(folder):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size, member.mode, member.mtime = path.stat().st_size, 0o600, int(path.stat().st_mtime)
            with path.open("rb") as content:
                archive.addfile(member, content)
            count, size = count + 1, size + member.size
    return count, size


def read(file: Path, folder: Path) -> tuple[str, int]:
    """Make a state folder from a backup, in one step.

    Returns:
        The study's name, and the number of files.

    Raises:
        StateError: the archive is no backup or damaged, or the folder is not empty.
        OutputError: the folder cannot be written.
    """
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise StateError(f"{folder} is not empty.", "Name a new folder with --state: nothing is written over.")
    scratch = folder.absolute().with_name(f".{folder.name}.{secrets.token_hex(6)}.part")
    try:
        make_private(scratch)
        count = _extract(file, scratch)
        study = State.open(scratch, create=False).study
        scratch.replace(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{folder} cannot be restored: {reason}.", "Choose a place with free space.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return study, count


def _plain_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.suffix == ".part":
            continue
        if path.relative_to(folder).as_posix() not in _LEFT_OUT:
            yield path


def _extract(file: Path, folder: Path) -> int:
    try:
        with tarfile.open(file, "r:") as archive:
            left, count = _MAX_BYTES, 0
            for member in archive:
                left, count = left - member.size, count + 1
                if left < 0 or count > _MAX_FILES:
                    raise StateError(f"{file} is too large for a backup.", _HINT)
                _extract_one(archive, member, folder)
    except (tarfile.TarError, EOFError, ValueError):
        raise StateError(f"{file} is damaged, or no backup.", _HINT) from None
    except FileNotFoundError:
        raise StateError(f"There is no file {file}.", _HINT) from None
    return count


def _extract_one(archive: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    content = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if content is None or name.is_absolute() or not name.parts or ".." in name.parts or "\0" in member.name:
        raise StateError(f"The backup holds {member.name!r:.100}, which is no file of a state folder.", _HINT)
    target = folder / name
    for parent in reversed(target.relative_to(folder).parents[:-1]):
        make_private(folder / parent)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise StateError(f"The backup holds {member.name!r:.100} twice.", _HINT) from None
    with os.fdopen(descriptor, "wb") as out:
        shutil.copyfileobj(content, out)
        out.flush()
        os.fsync(out.fileno())
