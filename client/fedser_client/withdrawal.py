"""What the withdrawal of a speaker changes on this site: recordings left alone, the state and the model made anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from fedser.adapt import METHODS, adapt, make
from fedser.bundle import Bundle
from fedser.errors import TooLittleDataError
from fedser.federation import site_state
from fedser.federation.local import assemble
from fedser_client import presence
from fedser_client.data import SiteData
from fedser_client.settings import SiteSettings
from fedser_client.speakers import Withdrawn
from fedser_client.state import SiteFolder

#: What no command takes back.
UNDONE = (
    "updates that left before stay in the provider's joint model and in what other sites made of it; under masks also "
    "one that lay ready to be fetched",
    "the privacy budget that was spent stays spent",
    "the audit log keeps sizes and digests of what left; it names no speaker",
    "the recordings lie where they lay: deleting them, and their backups, is their owner's",
)


def complete(folder: SiteFolder, settings: SiteSettings, bundle: Bundle) -> Withdrawn:
    """Finish what a withdrawal began: the site's own tensors go back to before the speaker, a stored answer goes.

    Done again after a crash, it ends the same. An answer that was stored and not yet fetched is forgotten: the
    provider's repeat of that order is refused as stale.

    Raises:
        StateError: the state or a kept model is damaged.
        OutputError: the folder cannot be written.
    """
    withdrawn = Withdrawn.load(folder)
    open_ = {mark: entry for mark, entry in withdrawn.speakers.items() if not entry.done}
    if not open_:
        return withdrawn
    path = folder.file("state.safetensors")
    state, first = site_state.load(path, settings.study), withdrawn.first
    if state is not None and first is not None:
        clean: dict[str, Tensor] = {**bundle.classifier().state_dict(), **presence.start(folder, first)[1]}
        own = {name: clean[name] for name in state.own if name in clean}
        site_state.save(path, replace(state, own=own, before=dict(own), teacher={}, order_digest="", reply=b""))
    for mark, entry in open_.items():
        withdrawn = withdrawn.with_(mark, entry.model_copy(update={"done": True}))
    withdrawn.save(folder)
    return withdrawn


def rebuilt(folder: SiteFolder, data: SiteData, order: Mapping[str, Any], first: int) -> nn.Module:
    """The personal model without those who withdrew: from the last joint model before they took part.

    The method of the study's orders runs here by its own schedule, on the speakers who are left.

    Args:
        folder: the state.
        data: the speakers who are left.
        order: the study's method, options and seed.
        first: the first round in which somebody who withdrew took part.
    """
    model = assemble(data.local, presence.start(folder, first)[1])
    if order.get("method") not in METHODS:
        return model
    method, local = make(str(order["method"]), order.get("options") or {}), data.local
    try:
        made = adapt(
            model, local.x, method, seed=int(order.get("seed", 0)), linear=local.linear, class_mask=local.class_mask
        )
    except TooLittleDataError:
        return model
    return made.model


def told(folder: SiteFolder, settings: SiteSettings) -> dict[str, Any] | None:
    """The entry ``withdrawal`` of ``results.json``: counts and rounds, no name and no mark; None without one.

    Raises:
        StateError: a file of the state is damaged.
    """
    withdrawn = Withdrawn.load(folder)
    if not withdrawn.speakers and not settings.left:
        return None
    entries, first = list(withdrawn.speakers.values()), withdrawn.first
    return {
        "site_left": settings.left,
        "signed_off": settings.signed_off,
        "speakers": len(entries),
        "took_part": sum(entry.first is not None for entry in entries),
        "first_round": first,
        "rebuilt_from": None if first is None else presence.start(folder, first)[0],
        "undone": list(UNDONE),
    }
