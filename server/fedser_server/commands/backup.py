"""``fedser-server backup`` and ``restore``: the whole state folder as one owner-only file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, StateFolder

_File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup's file.")]


def backup(file: _File, state: StateFolder = DEFAULT_STATE, form: Form = console.Format.text) -> None:
    """Write the state folder into one file (tar, for its owner only). It holds all keys. Stop the node first."""
    from fedser_server import archive

    count, size = archive.write(state, file)
    text = f"{file}: {count} files, {size} bytes. It holds the provider's keys: keep it as you keep those."
    console.emit({"backup": str(file), "files": count, "bytes": size}, form, lambda: text)


def restore(file: _File, state: StateFolder = DEFAULT_STATE, form: Form = console.Format.text) -> None:
    """Make a state folder from a backup. The folder must not exist, or be empty."""
    from fedser_server import archive

    study, count = archive.read(file, state)
    text = (
        f"{state}: {count} files of the study {study}.\n"
        "What happened after the backup is not in it: look through 'fedser-server sites' for sites that you "
        "revoked since."
    )
    console.emit({"state": str(state), "study": study, "files": count}, form, lambda: text)
