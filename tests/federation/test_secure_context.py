"""What keys, boxes and masks are bound to: what two sides must agree on changes them, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedser.errors import WireError
from fedser.federation.schema import Masked
from fedser.federation.secure_context import (
    box_context,
    box_key,
    commitment,
    list_digest,
    own_seed,
    pair_seed,
    roster_digest,
    sign_of,
    task_digest,
)
from fedser.privacy import agreement
from tests.federation.masks import name
from tests.federation.test_secure_site import ALL, FOUR, TERMS, Game

ONE, TWO = bytes(range(32)), bytes(range(1, 33))
PUBLIC = agreement.public_key(TWO).hex()


def test_a_task_is_what_all_orders_have_in_common() -> None:
    game = Game()
    order = game.order()
    assert order.masking is not None
    same = [
        replace(order, site=name(3)),
        replace(order, seed=order.seed + 1),
        replace(order, masking=replace(order.masking, boxes=())),
    ]
    assert {task_digest(other) for other in same} == {task_digest(order)}
    changes: list[dict[str, Any]] = [
        {"study": "other"},
        {"round": 2},
        {"attempt": 1},
        {"phase": "finish"},
        {"method": "aad"},
        {"options": {"a": 1}},
        {"work": replace(order.work, batch_size=99)},
        {"layout": (("weight", (20,)), ("bias", (20,)))},
        {"tensor_digest": "0" * 64},
        {"expires": 5},
        {"masking": Masked(replace(TERMS, clip=1.0), order.masking.roster, ALL, ())},
        {"masking": Masked(TERMS, "0" * 64, ALL, ())},
        {"masking": Masked(TERMS, order.masking.roster, FOUR, ())},
    ]
    digests = {task_digest(replace(order, **change)) for change in changes}
    assert len(digests | {task_digest(order)}) == len(changes) + 1
    with pytest.raises(ValueError, match="no masked sum"):
        task_digest(replace(order, masking=None))


def test_a_rosters_digest_is_what_it_says_to_all() -> None:
    roster = Game().roster()
    assert roster_digest(replace(roster, site=name(4), expires=7)) == roster_digest(roster)
    member = replace(roster.members[0], commitment="0" * 64)
    changes: list[dict[str, Any]] = [
        {"study": "other"},
        {"round": 2},
        {"attempt": 1},
        {"terms": replace(TERMS, threshold=4)},
        {"members": roster.members[:4]},
        {"members": (member, *roster.members[1:])},
    ]
    assert len({roster_digest(replace(roster, **change)) for change in changes} | {roster_digest(roster)}) == 7


def test_a_box_opens_for_its_roster_sender_and_receiver_alone() -> None:
    """Even with the same keys, as if a site had used them twice."""
    context = box_context("r1", "a", "b")
    box = agreement.seal(box_key(ONE, PUBLIC, context), b"shares", context)
    own = agreement.public_key(ONE).hex()
    assert agreement.unseal(box_key(TWO, own, context), box, context) == b"shares"
    for other in (box_context("r2", "a", "b"), box_context("r1", "b", "a"), box_context("r1", "a", "c")):
        with pytest.raises(WireError):
            agreement.unseal(box_key(TWO, own, other), box, other)


def test_masks_are_those_of_a_task_and_a_pair() -> None:
    own = agreement.public_key(ONE).hex()
    assert pair_seed(ONE, PUBLIC, "t", ("a", "b")) == pair_seed(TWO, own, "t", ("b", "a"))
    seeds = [
        pair_seed(ONE, PUBLIC, "t", ("a", "b")),
        pair_seed(ONE, PUBLIC, "u", ("a", "b")),
        pair_seed(ONE, PUBLIC, "t", ("a", "c")),
        own_seed(ONE, "t", "a"),
        own_seed(ONE, "u", "a"),
        own_seed(ONE, "t", "b"),
        own_seed(TWO, "t", "a"),
    ]
    assert len(set(seeds)) == len(seeds)
    assert sign_of("a", "b") + sign_of("b", "a") == 0


def test_lists_and_commitments_tell_apart() -> None:
    assert len({list_digest("t", ALL), list_digest("t", FOUR), list_digest("u", ALL)}) == 3
    assert commitment(ONE) != commitment(TWO)
