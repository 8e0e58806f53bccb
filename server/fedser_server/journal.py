"""What happens at a node, written down: ``events.jsonl`` for ever, ``status.json`` for now.

Neither holds a token, a key, an update or a figure about a site's data.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedser_server.folder import read_private

EVENTS, STATUS = "events.jsonl", "status.json"
_LASTING = ("finished", "goes_with")  # what the status carries from one process to the next
_LARGEST = 32 * 2**20  # bytes after which the events begin a new file; the one before is kept


class Journal:
    """Writes both files of a state folder; for any thread.

    Args:
        folder: the state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._events = folder / EVENTS
        self._status = folder / STATUS
        self._lock = threading.Lock()
        self._told: dict[str, Any] = {name: value for name, value in status(folder).items() if name in _LASTING}

    def record(self, event: Mapping[str, Any]) -> None:
        """Append one event. A full disk does not stop the node: the round's own files tell then."""
        line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False) + "\n"
        with self._lock:
            try:
                if self._events.exists() and self._events.stat().st_size > _LARGEST:
                    self._events.replace(self._events.with_suffix(".old.jsonl"))
                descriptor = os.open(self._events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, line.encode())
                finally:
                    os.close(descriptor)
            except OSError:
                return

    def tell(self, **changes: Any) -> None:  # noqa: ANN401 - JSON values
        """Change the status that ``fedser-server status`` shows."""
        with self._lock:
            self._told |= {"time": round(time.time(), 3), **changes}
            text = json.dumps(self._told, ensure_ascii=False) + "\n"
            scratch = self._status.with_name(f".{STATUS}.part")
            with suppress(OSError):  # replaced in one step; not synced, since the next line of it is near
                descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, text.encode())
                finally:
                    os.close(descriptor)
                scratch.replace(self._status)


def status(folder: Path) -> dict[str, Any]:
    """What the node told last; empty when it never ran."""
    path = folder / STATUS
    if not path.exists():
        return {}
    try:
        told = json.loads(read_private(path))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def tail(folder: Path, count: int) -> list[dict[str, Any]]:
    """The last events."""
    path = folder / EVENTS
    if not path.exists():
        return []
    found = []
    for line in read_private(path, 2 * _LARGEST).splitlines()[-count:]:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
