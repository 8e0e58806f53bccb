"""Speakers in the state folder: by a keyed hash each, so that no file of it holds a name.

The key lies beside the site's other keys and never leaves. A file of marks alone tells nobody who took part; with the
key, one name can be looked up. Marks serve withdrawal: who took part in which rounds, and who withdrew.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from pydantic import Field, StringConstraints

from fedser.audio.utterance import Utterance
from fedser.config import Settings, validate
from fedser.errors import ConfigError, KeyFileError, StateError
from fedser.files import write_bytes, write_text
from fedser.privacy.randomness import random_bytes
from fedser_client.state import SiteFolder

_KEY = 32  # bytes
_RESTORE = "Restore the state folder from a backup."

SettingsT = TypeVar("SettingsT", bound=Settings)
Mark = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Marks:
    """Turns names into marks.

    Args:
        folder: the state; the key is made when it is first needed.
    """

    def __init__(self, folder: SiteFolder) -> None:
        self._path = folder.file("keys") / "speaker-key"

    @cached_property
    def _key(self) -> bytes:
        path = self._path
        if not path.exists():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            write_bytes(path, random_bytes(_KEY), mode=0o600)
        if path.stat().st_mode & 0o077:
            raise KeyFileError(f"{path} is open to other users.", f"Run: chmod 600 '{path}'")
        key = path.read_bytes()
        if len(key) != _KEY:
            raise KeyFileError(f"{path} holds no key of {_KEY} bytes.", _RESTORE)
        return key

    def of(self, speaker: str) -> str:
        """The mark of a speaker: HMAC-SHA256 of the name, cut to 128 bits.

        Raises:
            KeyFileError: the key is damaged or open to other users.
            OutputError: it cannot be written.
        """
        return hmac.new(self._key, speaker.encode("utf-8"), hashlib.sha256).hexdigest()[:32]


class Withdrawal(Settings):
    """One speaker's withdrawal.

    Attributes:
        time: Unix time in seconds.
        first: the first round that the speaker took part in; None for one who never did.
        rounds: in how many.
        done: whether everything on this site that rested on the speaker was made anew.
    """

    time: Annotated[int, Field(ge=0)]
    first: Annotated[int | None, Field(ge=1)] = None
    rounds: Annotated[int, Field(ge=0)] = 0
    done: bool = False


class Withdrawn(Settings):
    """``withdrawn.json``: speakers who withdrew, by their marks."""

    fedser_withdrawn: Literal[1] = 1
    speakers: dict[Mark, Withdrawal] = Field(default_factory=dict)

    @classmethod
    def load(cls, folder: SiteFolder) -> Withdrawn:
        """Read it; empty where nobody withdrew.

        Raises:
            StateError: it is damaged.
        """
        return read(cls, folder, "withdrawn.json") or cls()

    def save(self, folder: SiteFolder) -> None:
        """Write it.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(folder.file("withdrawn.json"), self.model_dump_json(indent=1) + "\n", mode=0o600)

    def with_(self, mark: str, entry: Withdrawal) -> Withdrawn:
        """The same with one more, or one changed."""
        return self.model_copy(update={"speakers": {**self.speakers, mark: entry}})

    @property
    def first(self) -> int | None:
        """The first round in which any of them took part."""
        rounds = [entry.first for entry in self.speakers.values() if entry.first is not None]
        return min(rounds, default=None)

    def excludes(self, marks: Marks, utterance: Utterance) -> bool:
        """Whether an utterance is that of a speaker who withdrew."""
        return bool(self.speakers) and utterance.speaker is not None and marks.of(utterance.speaker) in self.speakers


def read(kind: type[SettingsT], folder: SiteFolder, name: str) -> SettingsT | None:
    """A file of the state folder as settings; None where there is none.

    Raises:
        StateError: it is damaged.
    """
    try:
        values = folder.json(name)
        return None if values is None else validate(kind, values, name)
    except (ConfigError, OSError, ValueError, RecursionError) as error:
        raise StateError(f"{folder.file(name)} is damaged: {type(error).__name__}.", _RESTORE) from None
