"""What the audit log holds of a masked sum: each message before it leaves, and nothing that is secret."""

from __future__ import annotations

import hashlib
from typing import Any

from fedser.federation import wire
from fedser.federation.layout import elements
from fedser.federation.schema import Order
from fedser.federation.secure_schema import Asked, KeysOrder, MaskedUpdate, Roster, Survivors

KEYS, SHARES, CONSENT, UNMASK = "mask keys", "mask shares", "mask consent", "mask unmask"
EVENTS = (KEYS, SHARES, CONSENT, UNMASK)


def said(asked: Asked, reply: bytes) -> dict[str, Any]:
    """The record of an answer without a tensor."""
    kinds = {KeysOrder: KEYS, Roster: SHARES, Survivors: CONSENT}
    return {
        "event": kinds.get(type(asked), UNMASK),
        "study": asked.study,
        "round": asked.round,
        "attempt": asked.attempt,
        "order": wire.order_digest(asked),
        **_sent(reply),
    }


def masked(order: Order, update: MaskedUpdate, reply: bytes) -> dict[str, Any]:
    """The record of a masked update; its norm is nobody's to see, and not told."""
    return {
        "event": "update",
        "study": order.study,
        "round": order.round,
        "attempt": order.attempt,
        "order": update.order_digest,
        **_sent(reply),
        "tensors": len(order.layout),
        "values": elements(order.layout),
        "encoding": f"masked u{update.modulus}",
        "norm": None,
        "utterances": None,
        "scalars": False,
    }


def _sent(reply: bytes) -> dict[str, Any]:
    return {"bytes": len(reply), "sha256": hashlib.sha256(reply).hexdigest()}
