"""Who took part in which rounds, and the models from before: what the withdrawal of a speaker needs.

A speaker's personal part can be undone here only by going back to a model that never saw them. So before the first
round of a speaker the model that this round starts from is kept: the joint model as it came, with the site's own
layers as they were. Only tensors that differ from the signed bundle's are written, and at most ``KEPT`` models: a
speaker who came later than those goes back to the newest kept one before them, or to the bundle.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedser.config import Settings
from fedser.errors import StateError
from fedser.federation.layout import network, unpack
from fedser.federation.local import assemble
from fedser.federation.stages import SiteWork
from fedser.files import write_tensors, write_text
from fedser_client.speakers import Mark, read
from fedser_client.state import SiteFolder

KEPT = 4  # models; each at most as large as the bundle
_RESTORE = "Restore the state folder from a backup."


class Presence(Settings):
    """``presence.json``.

    Attributes:
        sets: who was there, each combination once.
        rounds: which of them took part in a round.
        kept: rounds whose beginning is kept.
    """

    fedser_presence: Literal[1] = 1
    sets: tuple[tuple[Mark, ...], ...] = ()
    rounds: dict[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    kept: tuple[Annotated[int, Field(ge=1)], ...] = ()

    @classmethod
    def load(cls, folder: SiteFolder) -> Presence:
        """Read it; empty before the first round.

        Raises:
            StateError: it is damaged.
        """
        return read(cls, folder, "presence.json") or cls()

    def rounds_of(self, mark: str) -> list[int]:
        """The rounds in which a speaker took part."""
        return sorted(number for number, index in self.rounds.items() if mark in self.sets[index])


def note(folder: SiteFolder, marks: Iterable[str], work: SiteWork) -> None:
    """Write down who takes part in an order to train, before it is carried out.

    Args:
        folder: the state.
        marks: of the speakers whose recordings are there now.
        work: the order, what came with it, and the site's state.

    Raises:
        OutputError: it cannot be written; the order is not carried out then.
        StateError: what was written before is damaged.
    """
    if work.order.phase != "train":
        return
    now, known, number = tuple(sorted(marks)), Presence.load(folder), work.order.round
    if number in known.rounds and known.sets[known.rounds[number]] == now:
        return
    seen = {mark for index in known.rounds.values() for mark in known.sets[index]}
    kept = known.kept
    if not seen.issuperset(now) and number not in kept and len(kept) < KEPT:
        _keep(folder, number, work)
        kept = (*kept, number)
    sets = known.sets if now in known.sets else (*known.sets, now)
    rounds = {**known.rounds, number: sets.index(now)}
    made = known.model_copy(update={"sets": sets, "rounds": rounds, "kept": kept})
    write_text(folder.file("presence.json"), made.model_dump_json() + "\n", mode=0o600)


def start(folder: SiteFolder, first: int) -> tuple[int, dict[str, Tensor]]:
    """The newest kept model from before a speaker's first round.

    Args:
        folder: the state.
        first: that round.

    Returns:
        The round whose beginning it is, 0 for the signed bundle, and its tensors that differ from the bundle's.

    Raises:
        StateError: a kept model is gone or damaged.
    """
    number = max((kept for kept in Presence.load(folder).kept if kept <= first), default=0)
    if not number:
        return 0, {}
    path = _path(folder, number)
    try:
        return number, {name: tensor for name, tensor in load_file(path).items() if name != _NOTHING}
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} cannot be read: {type(error).__name__}.", _RESTORE) from None


def _keep(folder: SiteFolder, number: int, work: SiteWork) -> None:
    """Write the model that a round starts from, as far as it differs from the bundle."""
    received = network(unpack(work.tensors, work.order.layout))
    bundle = work.data.model.state_dict()
    now = assemble(work.data, work.state.own, received).state_dict()
    changed = {name: t.detach().cpu().clone() for name, t in now.items() if not torch.equal(t, bundle[name])}
    path = _path(folder, number)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    write_tensors(path, changed or {_NOTHING: torch.zeros(0)}, None, 0o600)


_NOTHING = "nothing.changed"  # safetensors may hold no tensor at all


def _path(folder: SiteFolder, number: int) -> Path:
    return folder.file("starts") / f"round-{number:06}.safetensors"
