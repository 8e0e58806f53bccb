"""The site's state folder: everything between two starts of the node, for its owner alone.

::

    site.json            see :class:`~fedser_client.settings.SiteSettings`; holds the token until it is exchanged
    keys/                node-key.pem (Flower's node authentication), reply-key (signs replies), speaker-key (marks)
    policy.yaml          the owner's
    bundle.safetensors   and its signature, verified; incoming/ holds one that is still on its way
    state.safetensors    the site's tensors and its last reply
    audit.jsonl          what left
    ledger.jsonl         the privacy budget, where the policy has one and names no other place
    presence.json        who took part in which rounds, and starts/: models of before; see presence
    withdrawn.json       who withdrew, as keyed hashes
    status.json          for ``fedser-client status``
    lock                 the process that works on it
    model.safetensors, predictions.csv, quarantine.csv, results.json, report.html      at the end
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fedser import lockfile
from fedser.config import validate
from fedser.errors import ConfigError, OutputError, StateError
from fedser.files import output_folder, write_text
from fedser_client.settings import SiteSettings

_LIMIT = 1 << 20  # bytes of a settings or status file
_RESTORE = "Restore the folder from a backup, or join again with a new invitation and another --state."


class SiteFolder:
    """An opened state folder.

    Args:
        path: the folder; made by :meth:`make`, found by :meth:`open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def make(cls, path: Path) -> SiteFolder:
        """Open a folder for joining; made owner-only when missing.

        Raises:
            StateError: other users may open it, or it is another user's.
            OutputError: it cannot be made or written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.mkdir(mode=0o700)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise OutputError(f"{path} cannot be made: {reason}.", "Name another folder with --state.") from None
        check_private(path)
        output_folder(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> SiteFolder:
        """Open the folder of a site that joined.

        Raises:
            StateError: there is none, other users may open it, or it is another user's.
        """
        if not path.is_dir():
            raise StateError(
                f"{path} is no state folder.", "Name a folder with --state that 'fedser-client join' made."
            )
        check_private(path)
        folder = cls(path)
        if not folder.joined:
            raise StateError(f"{path} belongs to no study.", "Join first: fedser-client join INVITATION --data DIR.")
        return folder

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name

    @property
    def joined(self) -> bool:
        """Whether a study was joined here."""
        return self.file("site.json").exists()

    def settings(self) -> SiteSettings:
        """What the site remembers.

        Raises:
            StateError: it is damaged.
        """
        path = self.file("site.json")
        try:
            return validate(SiteSettings, _json(path), str(path))
        except (ConfigError, OSError, ValueError, RecursionError) as error:
            raise StateError(f"{path} is damaged: {_first_line(error)}", _RESTORE) from None

    def remember(self, settings: SiteSettings) -> SiteSettings:
        """Write what the site remembers.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(self.file("site.json"), settings.model_dump_json(indent=1) + "\n", mode=0o600)
        return settings

    def json(self, name: str, limit: int = _LIMIT) -> dict[str, Any] | None:
        """A file of the folder, of at most ``limit`` bytes, as a JSON object; None where there is none.

        Raises:
            OSError, ValueError, RecursionError: it cannot be read, or holds something else.
        """
        path = self.file(name)
        return _json(path, limit) if path.exists() else None

    def status(self) -> dict[str, Any]:
        """What the node told last; empty where it told nothing, or nothing readable."""
        try:
            return _json(self.file("status.json"))
        except (OSError, ValueError, RecursionError):
            return {}

    def tell(self, **facts: object) -> None:
        """Change some facts of ``status.json``.

        Raises:
            OutputError: it cannot be written.
        """
        body = json.dumps({**self.status(), **facts}, ensure_ascii=False)
        write_text(self.file("status.json"), body + "\n", mode=0o600)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder for this process.

        Raises:
            StateError: another process holds it; the message names the process.
            OutputError: the folder cannot be written.
        """
        return lockfile.held(self.file("lock"), "Wait until that process has ended, or stop it.")

    def holder(self) -> int | None:
        """The process that works on the folder now, 0 where it has not told its id yet; None without one."""
        found = lockfile.holder(self.file("lock"))
        return 0 if found == lockfile.UNNAMED else found


def check_private(path: Path) -> None:
    """Refuse a folder that other users can open: it holds keys, a token and a model of people's speech.

    Raises:
        StateError: it is open to others, another user's, or no folder.
    """
    about = path.stat()
    if not stat.S_ISDIR(about.st_mode):
        raise StateError(f"{path} is not a folder.", "Name another folder with --state.")
    if about.st_uid != os.geteuid():
        raise StateError(f"{path} belongs to another user.", "Run the node as that user, or name another --state.")
    if about.st_mode & 0o077:
        raise StateError(f"{path} is open to other users.", f"Run: chmod 700 '{path}'")


def _json(path: Path, limit: int = _LIMIT) -> dict[str, Any]:
    with path.open("rb") as file:
        data = file.read(limit + 1)
    value = json.loads(data) if len(data) <= limit else None
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
