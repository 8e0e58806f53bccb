"""What the audit log holds of each message that leaves, before it does; nothing of it is secret."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from fedser.federation import wire
from fedser.federation.compress import unpacked
from fedser.federation.layout import elements, norm
from fedser.federation.schema import Code, Order, Update
from fedser.federation.secure_schema import Asked, KeysOrder, MaskedUpdate, Roster, Survivors

KEYS, SHARES, CONSENT, UNMASK = "mask keys", "mask shares", "mask consent", "mask unmask"
MASKING = (KEYS, SHARES, CONSENT, UNMASK)  # events of a masked sum that have no tensor

Entry = dict[str, Any]


def update(order: Order, answer: Update, payload: Tensor, reply: bytes) -> Entry:
    """The entry of an update, or of the answer to an order to finish, which has no tensor."""
    return {
        **_answered("update" if order.phase == "train" else "finished", order, answer.order_digest, reply),
        "tensors": len(order.layout) if len(payload) else 0,
        "values": len(payload),
        "encoding": answer.encoding,
        "norm": round(norm(unpacked(answer, payload)), 6),
        "utterances": answer.utterances,
        "scalars": answer.scalars is not None,
    }


def masked(order: Order, answer: MaskedUpdate, reply: bytes) -> Entry:
    """The entry of a masked update; its norm is nobody's to see, and not told."""
    return {
        **_answered("update", order, answer.order_digest, reply),
        "tensors": len(order.layout),
        "values": elements(order.layout),
        "encoding": f"masked u{answer.modulus}",
        "norm": None,
        "utterances": None,
        "scalars": False,
    }


def said(asked: Asked, reply: bytes) -> Entry:
    """The entry of a step of a masked sum without a tensor."""
    events = {KeysOrder: KEYS, Roster: SHARES, Survivors: CONSENT}
    return _answered(events.get(type(asked), UNMASK), asked, wire.order_digest(asked), reply)


def resent(order: Order, digest: str, reply: bytes) -> Entry:
    """The entry of a stored answer that leaves once more, or after a crash."""
    return _answered("resent", order, digest, reply)


def refusal(code: Code, digest: str | None) -> Entry:
    """The entry of a refusal: a code, and the digest of the order where it could be read."""
    return {"event": "refusal", "code": code.name, "order": digest}


def _answered(event: str, order: Order | Asked, digest: str, reply: bytes) -> Entry:
    return {
        "event": event,
        "study": order.study,
        "round": order.round,
        "attempt": order.attempt,
        "order": digest,
        "bytes": len(reply),
        "sha256": hashlib.sha256(reply).hexdigest(),
    }
