"""Messages of a masked sum on the wire: one form each, strict, and no bytes that bring a site or a provider down."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.errors import WireError
from fedser.federation import wire
from fedser.federation.layout import tensor_digest
from fedser.federation.schema import Code, Refusal
from fedser.federation.secure_schema import MaskedUpdate
from fedser.federation.stages import ServerState
from tests.federation.masks import PROVIDER, Post, mean_of, name, provider, start, stubs
from tests.federation.test_secure_site import ALL, Game

GAME = Game()
GAME.upload()
FLAT = torch.arange(6).to(torch.uint32)
MASKED = MaskedUpdate(1, "0" * 64, tensor_digest(FLAT), 32)
ASKED = {
    "keysorder": GAME.keys_order(name(0), attempt=1),
    "roster": GAME.roster(),
    "survivors": GAME.survivors(ALL),
    "unmask": GAME.unmask(ALL),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def forged(kind: str, body: object) -> bytes:
    """Any body, correctly signed by the provider."""
    text = wire._canonical(body)
    signature = PROVIDER.sign(f"fedser/{kind}/1\n".encode() + text.encode()).hex()
    return wire._container(wire._canonical({"body": body, "kind": kind, "signature": signature}), b"")


@pytest.mark.parametrize("kind", ASKED)
def test_each_message_has_one_form(kind: str) -> None:
    data = wire.encode(ASKED[kind], wire.NOTHING, PROVIDER)
    opened = wire.read(data, PROVIDER.public_hex)
    assert opened.message == ASKED[kind]
    assert wire.encode(opened.message, opened.flat, PROVIDER) == data
    body = json.loads(wire.canonical(ASKED[kind]))
    assert forged(kind, body) == data
    for changed in ({**body, "extra": 1}, {key: value for key, value in body.items() if key != "study"}):
        with pytest.raises(WireError, match="not on the schema"):
            wire.read(forged(kind, changed), PROVIDER.public_hex)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(ASKED)), st.data())
def test_any_signed_message_is_answered_with_bytes(kind: str, data: st.DataObject) -> None:
    """Whatever a provider signs, a site answers it or refuses it; no text of an error leaves."""
    body = json.loads(wire.canonical(ASKED[kind]))
    field = data.draw(st.sampled_from(sorted(body)))
    try:
        message = forged(kind, {**body, field: data.draw(JSON)})
        asked = wire.read(message, PROVIDER.public_hex).message
    except WireError:
        return
    site = GAME.sites[name(0)]
    assert isinstance(site.said(asked), bytes | Code)


def test_masked_updates_travel_as_their_integers() -> None:
    for dtype, modulus in ((torch.uint32, 32), (torch.uint64, 64)):
        flat = torch.tensor([0, 1, 2**31, 2**32 - 1], dtype=torch.int64).to(dtype)
        update = MaskedUpdate(1, "0" * 64, tensor_digest(flat), modulus)  # type: ignore[arg-type]
        data = wire.encode(update, flat, PROVIDER)
        opened = wire.read(data, PROVIDER.public_hex)
        assert opened.message == update
        assert opened.flat.dtype == dtype
        assert opened.flat.tolist() == flat.tolist()
        assert data.endswith(flat.numpy().tobytes())


@pytest.mark.parametrize("flat", [FLAT.to(torch.int64).float(), FLAT.to(torch.uint64), FLAT.reshape(2, 3)])
def test_a_masked_update_of_another_kind_of_tensor_is_refused(flat: torch.Tensor) -> None:
    with pytest.raises(WireError):
        wire.encode(MASKED, flat, PROVIDER)


def test_messages_without_a_tensor_have_none() -> None:
    for message in (*ASKED.values(), Refusal(1, None, Code.MASK)):
        with pytest.raises(WireError, match="has none"):
            wire.encode(message, torch.zeros(3), PROVIDER)


def test_a_masked_update_in_place_of_a_plain_one_and_the_reverse_are_refused() -> None:
    data = wire.encode(MASKED, FLAT, PROVIDER)
    with pytest.raises(WireError, match="something else"):
        wire.decode_reply(data, PROVIDER.public_hex)
    with pytest.raises(WireError, match="something else"):
        wire.decode_order(data, PROVIDER.public_hex)


def garbled(reply: bytes, how: str) -> bytes:
    return {
        "nothing": b"",
        "cut": reply[:-3],
        "flipped": reply[:50] + bytes([reply[50] ^ 1]) + reply[51:],
        "text": b"hello" * 100,
        "twice": reply + reply,
    }[how]


@pytest.mark.parametrize("how", ["nothing", "cut", "flipped", "text", "twice", "another's", "of the step before"])
@pytest.mark.parametrize("step", range(5))
def test_a_garbled_answer_at_any_step_is_a_dropout(how: str, step: int) -> None:
    """The provider goes on without the site, if it had not uploaded, and with its update where it had."""
    sites = stubs(4)
    last: dict[str, bytes] = {}
    seen: list[str] = []

    def change(site: str, asked: Any, reply: bytes) -> bytes:
        before = last.get(site, b"")
        last[site] = reply
        if site != name(3):
            return reply
        seen.append(site)
        if len(seen) != step + 1:
            return reply
        if how == "another's":
            return last[name(2)]
        return before if how == "of the step before" else garbled(reply, how)

    node = provider(sites, Post(sites, change=change))
    after = node.round(1, start(), ServerState())[0]
    kept = list(sites.values()) if step > 2 else list(sites.values())[:3]
    assert torch.equal(after, mean_of(kept))
    assert [refused.site for refused in node.refusals] == [name(3)]
