"""What binds each key, box, mask and signature of a masked sum to its place: digests that all sides compute alike.

Every derived key names a roster or a task. The roster's digest covers study, round, attempt, terms and all members'
keys; the task's covers what the orders of all sites have in common: the roster, the senders, layout, tensors, method
and work. A site that was shown something else derives other keys, and nothing cancels or opens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

from fedser.federation import wire
from fedser.federation.schema import Order
from fedser.federation.secure_schema import MaskKeys, Member, Roster
from fedser.privacy import agreement

_BOX, _PAIR, _OWN = "share", "pair mask", "own mask"


def commitment(seed: bytes) -> str:
    """What is told of a seed beforehand, in hexadecimal; of 32 uniform bytes it reveals nothing that helps."""
    return hashlib.sha256(b"fedser/seed/1\n" + seed).hexdigest()


def roster_digest(roster: Roster) -> str:
    """SHA-256 of what a roster says to all sites alike."""
    return wire.order_digest(replace(roster, site="all", expires=0))


def task_digest(order: Order) -> str:
    """SHA-256 of what the orders of a masked round have in common: all but the site, its seed and its boxes.

    Raises:
        ValueError: the order is for no masked sum.
    """
    if order.masking is None:
        raise ValueError("the order is for no masked sum")
    common = replace(order, site="all", seed=0, masking=replace(order.masking, boxes=()))
    return wire.order_digest(common)


def list_digest(task: str, survivors: Sequence[str]) -> str:
    """SHA-256 of a list of survivors of one task."""
    text = json.dumps({"survivors": list(survivors), "task": task}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(b"fedser/list/1\n" + text.encode()).hexdigest()


def keys_of(roster: Roster, member: Member) -> MaskKeys:
    """The message that a member signed, as the roster tells it."""
    return MaskKeys(
        protocol=1,
        study=roster.study,
        round=roster.round,
        attempt=roster.attempt,
        site=member.site,
        terms=roster.terms,
        encryption=member.encryption,
        agreement=member.agreement,
        commitment=member.commitment,
    )


def box_context(roster: str, sender: str, receiver: str) -> bytes:
    """What a sealed box is bound to."""
    return f"{roster}\n{sender}\n{receiver}".encode()


def box_key(private: bytes, public: str, context: bytes) -> bytes:
    """The key of a box, from one side's private encryption key and the other's public one."""
    return agreement.derive(agreement.shared_secret(private, bytes.fromhex(public)), _BOX, context)


def pair_seed(private: bytes, public: str, task: str, pair: tuple[str, str]) -> bytes:
    """The seed of the mask that two sites have in common, from either one's private agreement key."""
    first, second = sorted(pair)
    context = f"{task}\n{first}\n{second}".encode()
    return agreement.derive(agreement.shared_secret(private, bytes.fromhex(public)), _PAIR, context)


def own_seed(seed: bytes, task: str, site: str) -> bytes:
    """The seed of a site's own mask."""
    return agreement.derive(seed, _OWN, f"{task}\n{site}".encode())


def sign_of(site: str, peer: str) -> int:
    """Whether ``site`` adds (1) or takes away (−1) the mask that it has in common with ``peer``."""
    return 1 if site < peer else -1
