"""Where a study stands, on disk: the last two rounds' results, and the orders that are in flight.

``checkpoints/round-000003.safetensors`` holds ``flat`` (the joint tensors, one after the other) and what the
server's optimiser carries, with one metadata entry: the study, the round, a digest of the settings and bundle
that the study goes with, and a SHA-256 over all of it. ``flight.json`` makes the orders of the next round the
same bytes after a restart, so that a site which answered before does not answer twice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedser import files
from fedser.config import Settings, validate
from fedser.errors import ConfigError, StateError
from fedser.federation.layout import raw_bytes
from fedser.federation.provider import Flight
from fedser.federation.stages import ServerState
from fedser_server.folder import make_private, read_private

KEPT = 2
_ENTRY = "fedser"
_MARGIN = 60  # seconds that an order in flight must still be good for
_HINT = "Restore the state folder from a backup, or remove the damaged file: the checkpoint before it is taken."


class _Entry(Settings):
    """The metadata entry."""

    schema_version: Literal[1] = 1
    study: str
    round: Annotated[int, Field(ge=1)]
    goes_with: str
    created: int
    sha256: str = ""


class _FlightFile(Settings):
    """``flight.json``."""

    round: Annotated[int, Field(ge=1)]
    attempt: Annotated[int, Field(ge=0)]
    expires: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Checkpoint:
    """A study after a round.

    Attributes:
        round: the last one that is done.
        flat: the joint tensors, float32 [P].
        state: of the server.
    """

    round: int
    flat: Tensor
    state: ServerState


class Checkpoints:
    """The checkpoints of one study.

    Args:
        folder: the provider's state folder.
        study: its name.
        goes_with: digest of everything that the result depends on.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, study: str, goes_with: str) -> None:
        self._folder = folder / "checkpoints"
        self._flight = folder / "flight.json"
        self._study = study
        self._goes_with = goes_with
        make_private(self._folder)

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write one, and drop all but the last two.

        Raises:
            OutputError: the place cannot be written; the ones before are as they were.
        """
        tensors = _tensors(checkpoint)
        entry = _Entry(study=self._study, round=checkpoint.round, goes_with=self._goes_with, created=int(time.time()))
        entry = entry.model_copy(update={"sha256": _digest(entry, tensors)})
        path = self._path(checkpoint.round)
        files.write_tensors(path, tensors, {_ENTRY: entry.model_dump_json()}, 0o600)
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)
        return path

    def load(self) -> Checkpoint | None:
        """The newest whole one; None when the study has none yet.

        Raises:
            StateError: it goes with another study or other settings, or all there are are damaged.
        """
        paths = self._paths()
        for path in paths:
            found = _read(path)
            if found is None:
                continue
            entry, tensors = found
            if entry.study != self._study or entry.goes_with != self._goes_with:
                raise StateError(
                    f"{path} was made with other settings or another bundle.",
                    "Start with the same settings and bundle, or name another folder with --state for a new study.",
                )
            return Checkpoint(entry.round, tensors["flat"], ServerState(tensors.get("velocity"), tensors.get("second")))
        if paths:
            raise StateError(f"{paths[0]} is damaged, and so are the checkpoints before it.", _HINT)
        return None

    def flight(self, number: int, lifetime: int, *, anew: bool = False) -> Flight:
        """Attempt and expiry of a round's orders: those of an earlier try while they are good, else new ones.

        With ``anew`` they are always new: a masked sum that was cut off is given up, and the next has its own keys.

        The attempt never falls, so that a round which is run again, since the checkpoint after it was lost, has
        orders that its sites have not seen.

        Raises:
            OutputError: they cannot be written down, and then no order may leave.
        """
        known = self._known_flight()
        now = int(time.time())
        if not anew and known is not None and known.round == number and known.expires > now + _MARGIN:
            return Flight(known.attempt, known.expires)
        attempt = 0 if known is None else known.attempt + (known.round >= number)
        new = _FlightFile(round=number, attempt=attempt, expires=now + lifetime)
        files.write_text(self._flight, new.model_dump_json() + "\n", mode=0o600)
        return Flight(new.attempt, new.expires)

    def _known_flight(self) -> _FlightFile | None:
        if not self._flight.exists():
            return None
        try:
            return validate(_FlightFile, json.loads(read_private(self._flight)), str(self._flight))
        except (ValueError, ConfigError):
            raise StateError(f"{self._flight} is damaged.", "Restore the state folder from a backup.") from None

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:06d}.safetensors"

    def _paths(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob("round-*.safetensors"), reverse=True)


def goes_with(settings: Mapping[str, Any], bundle_digest: str) -> str:
    """Digest of what a study's result depends on: its settings and its bundle."""
    text = json.dumps({"settings": settings, "bundle": bundle_digest}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    named = {"flat": checkpoint.flat, "velocity": checkpoint.state.velocity, "second": checkpoint.state.second}
    return {name: tensor.contiguous() for name, tensor in named.items() if tensor is not None}


def _read(path: Path) -> tuple[_Entry, dict[str, Tensor]] | None:
    """What a file holds; None when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            entry = validate(_Entry, json.loads((file.metadata() or {})[_ENTRY]), str(path))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError, KeyError, ValueError, ConfigError):
        return None
    flat = tensors.get("flat")
    if flat is None or flat.dtype != torch.float32 or flat.ndim != 1 or entry.sha256 != _digest(entry, tensors):
        return None
    return entry, tensors


def _digest(entry: _Entry, tensors: Mapping[str, Tensor]) -> str:
    plain = entry.model_dump(mode="json", exclude={"sha256"})
    total = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for name in sorted(tensors):
        total.update(f"{name} {list(tensors[name].shape)}\0".encode())
        total.update(raw_bytes(tensors[name]))
    return total.hexdigest()
