"""Hostile updates against every aggregation rule: refused with a reason, and the model as without that site.

What a hostile site sends within the norm cannot be refused; ``test_robust.py`` shows what it achieves.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

from fedser.federation import wire
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.layout import raw_bytes, tensor_digest
from fedser.federation.provider import Flight, Plan, Provider, Silence
from fedser.federation.schema import Code, Order, Refusal, Update
from fedser.federation.stages import ServerState
from tests.federation.conftest import ORDER_KEY, Lab, key

RULES = ("mean", "norm_bounded", "trimmed_mean", "median", "multi_krum")
SITES, HOSTILE_SITE = 6, "site-4"  # in the middle of the round
LARGEST_NORM = 5.0


@dataclass(frozen=True)
class Round:
    """One round's orders and the honest replies to them, computed once."""

    plan: Plan
    start: torch.Tensor
    orders: dict[str, bytes]
    replies: dict[str, bytes]
    earlier: bytes  # the hostile site's honest reply to an earlier attempt


@cache
def honest_round() -> Round:
    sites = Lab.sites(SITES)
    plan = Lab.plan(sites, steps=2, rounds=1, largest_norm=LARGEST_NORM)
    start = Lab.start(plan)
    transport = Lab.wired(sites)
    provider(plan, transport, "mean", Flight(0, 2**40)).round(1, start, ServerState())
    earlier = dict(transport.replies)[HOSTILE_SITE]
    transport.orders.clear()
    transport.replies.clear()
    provider(plan, transport, "mean", Flight(1, 2**40)).round(1, start, ServerState())
    return Round(plan, start, dict(transport.orders), dict(transport.replies), earlier)


def provider(plan: Plan, transport: Any, rule: str, flight: Flight) -> Provider:
    stages = server_stages(AggregationSettings(rule=rule, weighting="uniform" if rule not in RULES[:2] else "counts"))
    return Provider(plan, ORDER_KEY, transport, stages, flight=lambda number: flight)


@dataclass
class Stored:
    """A transport that answers with given bytes."""

    replies: dict[str, bytes]

    def exchange(self, orders: Any) -> Any:
        for site, _ in orders:
            yield site, self.replies.get(site, Silence("no reply"))


def outcome(rule: str, changed: bytes | None) -> tuple[torch.Tensor, dict[str, str]]:
    """The model after a round in which the hostile site's reply is replaced, or missing."""
    world = honest_round()
    replies = {site: reply for site, reply in world.replies.items() if site != HOSTILE_SITE}
    if changed is not None:
        replies[HOSTILE_SITE] = changed
    server = provider(world.plan, Stored(replies), rule, Flight(1, 2**40))
    tensors, _ = server.round(1, world.start, ServerState())
    return tensors, {refused.site: refused.code for refused in server.refusals}


def sign(body: dict[str, Any], flat: torch.Tensor, number: int = 4) -> bytes:
    """A correctly signed reply around any body, as the site itself could write it."""
    text = wire._canonical(body)
    signature = key(number).sign(b"fedser/update/1\n" + text.encode()).hex()
    entry = json.dumps({"body": body, "kind": "update", "signature": signature}, sort_keys=True, separators=(",", ":"))
    return wire._container(entry, raw_bytes(flat))


def honest() -> tuple[Update, torch.Tensor]:
    update, flat = wire.decode_reply(honest_round().replies[HOSTILE_SITE], key(4).public_hex)
    assert isinstance(update, Update)
    return update, flat


def body(**changes: Any) -> dict[str, Any]:
    update, _ = honest()
    return {**wire._plain("update", update), **changes}


def with_values(value: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    flat = value(honest()[1].clone())
    return sign(body(tensor_digest=tensor_digest(flat)), flat)


def one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def put(flat: torch.Tensor) -> torch.Tensor:
        flat[7] = value
        return flat

    return put


def claim(utterances: Any) -> bytes:
    return sign(body(utterances=utterances), honest()[1])


def header(change: Callable[[dict[str, Any]], None], extra: bytes = b"") -> bytes:
    """The honest reply with another container header."""
    data = honest_round().replies[HOSTILE_SITE]
    length = int.from_bytes(data[:8], "little")
    parsed = json.loads(data[8 : 8 + length])
    change(parsed)
    text = json.dumps(parsed, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :] + extra


def duplicated() -> bytes:
    data = honest_round().replies[HOSTILE_SITE]
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].rstrip()
    tensor = json.dumps(json.loads(text)["flat"], separators=(",", ":")).encode()
    text = text[:-1] + b',"flat":' + tensor + b"}"
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def from_another_site() -> bytes:
    return honest_round().replies["site-5"]


def the_order_back() -> bytes:
    return honest_round().orders[HOSTILE_SITE]


def anothers_order() -> bytes:
    order, _ = wire.decode_order(honest_round().orders["site-5"], ORDER_KEY.public_hex)
    assert isinstance(order, Order)
    return sign(body(order_digest=wire.order_digest(order)), honest()[1])


def a_refusal_with_a_tensor() -> bytes:
    refusal = wire.encode(Refusal(1, honest()[0].order_digest, Code.WORK), torch.zeros(0), key(4))
    length = int.from_bytes(refusal[:8], "little")
    return refusal[: 8 + length] + bytes(8)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "NaN": lambda: with_values(one(float("nan"))),
    "plus infinity": lambda: with_values(one(float("inf"))),
    "minus infinity": lambda: with_values(one(-float("inf"))),
    "1e9": lambda: with_values(one(1e9)),
    "sign flip × 10, beyond the norm": lambda: with_values(lambda f: -10 * f * LARGEST_NORM / f.norm()),
    "just beyond the norm": lambda: with_values(lambda f: 1.001 * f * LARGEST_NORM / f.norm()),
    "count 1e12": lambda: claim(10**12),
    "count -1": lambda: claim(-1),
    "count 0": lambda: claim(0),
    "count NaN": lambda: sign(body(), honest()[1]).replace(b'utterances\\":50', b'utterances\\":NaN'),
    "count as text": lambda: claim("50"),
    "shape (1,)": lambda: with_values(lambda f: f[:1]),
    "missing: a tensor too few": lambda: with_values(lambda f: f[:-4]),
    "extra: a tensor too many": lambda: with_values(lambda f: torch.cat([f, f[:8]])),
    "oversized": lambda: with_values(lambda f: f.repeat(1000)),
    "a second tensor": lambda: header(
        lambda h: h.update({"bank": {**h["flat"], "data_offsets": [h["flat"]["data_offsets"][1]] * 2, "shape": [0]}})
    ),
    "duplicate: the tensor named twice": duplicated,
    "wrong type: float64": lambda: header(lambda h: h["flat"].update(dtype="F64")),
    "wrong type: int32": lambda: header(lambda h: h["flat"].update(dtype="I32")),
    "bytes after the end": lambda: header(lambda h: None, bytes(8)),
    "cut short": lambda: honest_round().replies[HOSTILE_SITE][:-3],
    "nothing": lambda: b"",
    "stale: an earlier attempt's answer": lambda: honest_round().earlier,
    "replayed: another site's answer": from_another_site,
    "another site's order answered": anothers_order,
    "the order back": the_order_back,
    "a refusal with a tensor": a_refusal_with_a_tensor,
    "a list where a number belongs": lambda: sign(
        body(scalars={"loss": [1.0], "confidence": 0.5, "diversity": 0.5}), honest()[1]
    ),
    "one more field": lambda: sign(body(seconds=3.5), honest()[1]),
    "tensor exchanged after signing": lambda: sign(body(), honest()[1] + 1),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_update_is_refused_and_changes_no_bit(name: str, rule: str) -> None:
    expected, _ = outcome(rule, None)
    tensors, refusals = outcome(rule, HOSTILE[name]())
    assert set(refusals) == {HOSTILE_SITE}
    assert refusals[HOSTILE_SITE]
    assert torch.equal(tensors, expected)


def test_the_list_is_long_enough_and_the_honest_update_counts() -> None:
    assert len(HOSTILE) >= 20
    for rule in RULES:
        with_it, refusals = outcome(rule, honest_round().replies[HOSTILE_SITE])
        assert refusals == {}
        assert not torch.equal(with_it, outcome(rule, None)[0])
    assert sign(body(), honest()[1]) == honest_round().replies[HOSTILE_SITE]  # the forger writes what a site writes


def test_a_flipped_update_within_the_norm_is_not_refused() -> None:
    """The limit of validation: only a rule that compares sites answers this one."""
    flipped = with_values(lambda flat: -flat)
    for rule in RULES:
        assert outcome(rule, flipped)[1] == {}
