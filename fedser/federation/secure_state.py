"""What a site carries through the exchanges of a masked sum, and on disk: one owner-only file, replaced in one step.

It is written before anything that depends on it leaves. With the masked update go the site's own secrets: from then on
nothing here could make a second payload under the same masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from fedser import files
from fedser.config import Settings
from fedser.errors import StateError
from fedser.federation.secure_schema import Roster

_Bytes = Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]


class Answer(Settings):
    """A request of this attempt, by its digest, and the bytes that answered it."""

    request: str
    reply: _Bytes


class Revealed(Settings):
    """The last list of survivors whose sum this site helped to unmask."""

    round: int
    survivors: tuple[str, ...]


class SecureState(Settings):
    """A site in one attempt at a masked sum.

    Attributes:
        study, round, attempt: of the attempt; (0, 0) before the first.
        encryption, agreement, seed: the site's own secrets; empty once the masked update was made.
        roster: as the provider showed it; None before.
        senders: between which there are masks; empty before the masked update was made, and so is ``task``.
        shares: of each sender, this site's too: its key's share and its seed's.
        survivors: the one list that was signed.
        answers: what was answered in this attempt: a repeat gets the same bytes.
        revealed: see :class:`Revealed`; outlasts the attempt.
    """

    schema_version: Literal[1] = 1
    study: str
    round: int = 0
    attempt: int = 0
    encryption: _Bytes = ""
    agreement: _Bytes = ""
    seed: _Bytes = ""
    roster: Roster | None = None
    task: str = ""
    senders: tuple[str, ...] = ()
    shares: dict[str, tuple[_Bytes, _Bytes]] = Field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    revealed: Revealed | None = None

    def stored(self, request: str) -> bytes | None:
        """The answer to a request of this attempt; None when it is new."""
        return next((bytes.fromhex(answer.reply) for answer in self.answers if answer.request == request), None)


def save(path: Path, state: SecureState) -> None:
    """Write a state, owner-only and through to the disk.

    Raises:
        OutputError: the place cannot be written, and then nothing may leave.
    """
    files.write_text(path, state.model_dump_json() + "\n", mode=0o600)


def load(path: Path, study: str) -> SecureState | None:
    """Read a state; None where there is no file, or another study's.

    Raises:
        StateError: it cannot be read or is damaged.
    """
    if not path.exists():
        return None
    try:
        state = SecureState.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StateError(
            f"{path} is damaged or cannot be read: {type(error).__name__}.",
            "Remove it: the site then sits out the round that goes on, and takes part in the next.",
        ) from None
    return state if state.study == study else None
