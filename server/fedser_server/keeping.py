"""Making a state folder, and finishing what a crash left half done. Callers hold the folder's lock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fedser import files
from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.errors import KeyFileError, StateError
from fedser.federation import trust
from fedser_server import study as studies
from fedser_server.authority import AuthorityFolder
from fedser_server.folder import RESTORE, make_private, read_private
from fedser_server.roster import Roster

_MADE = {studies.FILE, "sites.json", "keys", "tls", "edit.lock", "lock", "trust.jsonl"}


def order_key_path(folder: Path) -> Path:
    """Where the key that signs orders lies."""
    return folder / "keys" / "order-key"


def create(folder: Path, name: str | None) -> None:
    """Make whatever an unfinished state folder lacks; ``study.json`` comes last and makes it whole.

    Raises:
        StateError: the folder holds other files, or it was whole once.
        ConfigError: ``name`` is no name for a study.
        OutputError: the place cannot be written.
    """
    roster = Roster(folder)
    if (folder / "trust.jsonl").exists() or (roster.path.exists() and roster.entries()):
        raise StateError(f"{folder / studies.FILE} is missing.", RESTORE)
    strange = sorted(path.name for path in folder.iterdir() if path.name not in _MADE and path.suffix != ".part")
    if strange:
        raise StateError(f"{folder} holds other files, such as {strange[0]}.", "Name a new or empty folder.")
    study = studies.new(name)
    roster.create()
    make_private(folder / "keys")
    if not _whole(order_key_path(folder)):
        _new_key(order_key_path(folder))
    AuthorityFolder(folder).create()
    studies.write(folder, study)


def chain(folder: Path) -> list[str]:
    """The chain of renewals, as JSON lines.

    Raises:
        StateError: it is damaged.
    """
    path = folder / "trust.jsonl"
    if not path.exists():
        return []
    try:
        lines = read_private(path).decode("utf-8").splitlines()
        good = all(json.loads(line)["sequence"] == number for number, line in enumerate(lines, 1)) and bool(lines)
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise StateError(f"The chain of renewals {path} is damaged.", RESTORE)
    return lines


def announce(folder: Path, lines: Sequence[str], *, order_key: str, ca: str) -> None:
    """Add a step to the chain of renewals, signed by the order key that is good until now."""
    step = trust.renew(lines, keys.load(order_key_path(folder)), order_key=order_key, ca=ca)
    files.write_text(folder / "trust.jsonl", "".join(f"{line}\n" for line in (*lines, step)), mode=0o600)


def renew_order_key(folder: Path, ca: str) -> None:
    """Make a new order key. It lies beside the old one until the chain names it: a crash loses neither."""
    following = _following(folder)
    announce(folder, chain(folder), order_key=_new_key(following).public_hex, ca=ca)
    finish(folder)


def finish(folder: Path) -> None:
    """Put a new order key in its place once the chain of renewals names it.

    Raises:
        StateError: the folder's order key is not the one that the chain ends at.
    """
    lines = chain(folder)
    if not lines:
        return
    path, following, newest = order_key_path(folder), _following(folder), json.loads(lines[-1])["order_key"]
    if _whole(following) and keys.load(following).public_hex == newest:
        files.write_text(keys.public_path(path), newest + "\n")
        following.replace(path)
        keys.public_path(following).unlink(missing_ok=True)
    if keys.load(path).public_hex != newest:
        raise StateError(f"The key {path} is not the one that the chain of renewals ends at.", RESTORE)


def _following(folder: Path) -> Path:
    return order_key_path(folder).with_name("order-key.next")


def _new_key(path: Path) -> SigningKey:
    """A key in the place of one that nobody was ever told of."""
    path.unlink(missing_ok=True)
    keys.public_path(path).unlink(missing_ok=True)
    return keys.create(path)


def _whole(path: Path) -> bool:
    try:
        keys.load(path)
    except KeyFileError:
        return False
    return True
