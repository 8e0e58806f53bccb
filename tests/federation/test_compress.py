"""Updates in fewer bytes: small errors, the norm kept, one way to write them, and hostile ones refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors

from fedser.errors import WireError
from fedser.federation import wire
from fedser.federation.audit import AuditLog
from fedser.federation.compress import compress, restore, within
from fedser.federation.layout import raw_bytes, tensor_digest
from fedser.federation.policy import Policy
from fedser.federation.provider import accept
from fedser.federation.schema import ENCODINGS, Code, Refusal, Update
from tests.federation.conftest import ORDER_KEY, key

LAYOUT = (("a.weight", (2, 3)), ("a.bias", (2,)), ("b.weight", (1,)))
FLATS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=9, max_size=9).map(torch.tensor)


@given(FLATS)
@settings(max_examples=200, deadline=None)
def test_eight_bits_by_a_slow_loop(flat: torch.Tensor) -> None:
    packed = compress(flat, LAYOUT, "i8")
    assert packed.scales is not None
    restored, start = restore(packed), 0
    for size, scale in packed.scales:
        part = flat[start : start + size].tolist()
        assert scale == pytest.approx(max(abs(value) for value in part) / 127, rel=1e-6)
        for place, value in enumerate(part):
            step = round(value / scale) if scale else 0  # Python rounds ties to even too
            assert int(packed.payload[start + place]) == max(-127, min(127, step))
            assert abs(float(restored[start + place]) - value) <= scale * 0.5001 + 1e-12
        start += size
    assert start == 9


@given(FLATS)
@settings(max_examples=100, deadline=None)
def test_half_precision_is_the_nearest(flat: torch.Tensor) -> None:
    import numpy as np

    assert torch.equal(
        restore(compress(flat, LAYOUT, "f16")), torch.from_numpy(flat.numpy().astype(np.float16)).float()
    )


@given(FLATS, st.sampled_from(ENCODINGS), st.floats(1e-3, 1e4))
@settings(max_examples=200, deadline=None)
def test_what_is_restored_is_never_longer_than_the_clipping_norm(
    flat: torch.Tensor, encoding: Any, norm: float
) -> None:
    packed = within(flat, LAYOUT, encoding, norm)
    assert packed is not None
    restored = restore(packed).double()
    assert float(restored.norm()) <= norm
    if float(flat.double().norm()) < 0.9 * norm:
        assert float((restored - flat).norm()) <= 0.02 * float(flat.norm()) + 1e-6


def test_what_an_encoding_cannot_hold_is_none() -> None:
    flat = torch.full((9,), 1e6)
    assert within(flat, LAYOUT, "f16", 1e9) is None
    assert within(flat, LAYOUT, "i8", 1e9) is not None


def test_nothing_is_written_as_nothing() -> None:
    for encoding in ENCODINGS:
        packed = within(torch.zeros(0), LAYOUT, encoding, 1.0)
        assert packed is not None
        assert restore(packed).shape == (0,)


def ask(lab: Any, encoding: str, policy: Policy | None = None, phase: str = "train", **options: Any) -> Any:
    site = lab.site(1, policy, **options)
    plan = lab.plan({"site-1": site})
    start = lab.start(plan)
    order = replace(lab.provider({}, plan).order(1, "site-1", phase, start), encoding=encoding)
    return plan, order, site.answer(wire.encode(order, start, ORDER_KEY))


@pytest.mark.parametrize(("encoding", "width"), [("f32", 4), ("f16", 2), ("i8", 1)])
def test_updates_travel_in_the_orders_encoding(lab: Any, encoding: str, width: int) -> None:
    log = AuditLog()
    plan, order, reply = ask(lab, encoding, audit=log)
    received = accept(reply, order, "site-1", plan)
    assert received.update.encoding == encoding
    stored = load_safetensors(reply)["flat"]
    assert stored.element_size() == width
    assert received.update.tensor_digest == tensor_digest(stored)
    assert len(raw_bytes(stored)) == width * len(stored)
    _, plain_order, plain = ask(lab, "f32")
    exact = accept(plain, plain_order, "site-1", plan).flat
    assert received.flat.dtype == torch.float32
    assert float((received.flat - exact).norm()) <= {4: 0.0, 2: 1e-3, 1: 2e-2}[width] * float(exact.norm())
    assert (log.records[0]["encoding"], log.records[0]["values"]) == (encoding, len(exact))
    assert log.records[0]["norm"] == pytest.approx(float(received.flat.double().norm()), abs=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_answer_to_finish_is_empty_in_every_encoding(lab: Any, encoding: str) -> None:
    plan, order, reply = ask(lab, encoding, phase="finish")
    assert accept(reply, order, "site-1", plan).flat.shape == (0,)


def test_the_policy_names_the_encodings(lab: Any) -> None:
    for encoding, code in (("f32", None), ("i8", Code.WORK)):
        _, _, reply = ask(lab, encoding, Policy(encodings=("f32", "f16")))
        message, _ = wire.decode_reply(reply, key(1).public_hex)
        assert (message.code if isinstance(message, Refusal) else None) == code


DIGEST = "0" * 64
PAYLOAD = torch.tensor([127, -127, 5, 0, 0, 1, 127, 3, -127], dtype=torch.int8)
SCALES = ((6, 0.5), (2, 0.25), (1, 1.0))


def update(payload: torch.Tensor, **changes: Any) -> Update:
    fields = {"encoding": "i8", "scales": SCALES, **changes}
    return Update(1, DIGEST, tensor_digest(payload), None, None, **fields)


def forge(body: dict[str, Any], payload: torch.Tensor, dtype: str) -> bytes:
    text = wire._canonical(body)
    signature = key(1).sign(b"fedser/update/1\n" + text.encode()).hex()
    return wire._container(
        wire._canonical({"body": body, "kind": "update", "signature": signature}), raw_bytes(payload), dtype
    )


def body(payload: torch.Tensor = PAYLOAD, **changes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(asdict(update(payload)))), **changes}


def test_the_forger_writes_what_the_encoder_writes() -> None:
    assert forge(body(), PAYLOAD, "I8") == wire.encode(update(PAYLOAD), PAYLOAD, key(1))
    _, flat = wire.decode_reply(forge(body(), PAYLOAD, "I8"), key(1).public_hex)
    assert flat.tolist() == [63.5, -63.5, 2.5, 0, 0, 0.5, 31.75, 0.75, -127.0]


HALF = PAYLOAD.half()
HOSTILE = {
    "no scales": lambda: forge(body(scales=None), PAYLOAD, "I8"),
    "scales without bits": lambda: forge(body(HALF, encoding="f16"), HALF, "F16"),
    "too few scales": lambda: forge(body(scales=[[6, 0.5], [2, 0.25]]), PAYLOAD, "I8"),
    "too many scales": lambda: forge(body(scales=[[6, 0.5], [2, 0.25], [1, 1.0], [1, 1.0]]), PAYLOAD, "I8"),
    "a tensor without values": lambda: forge(body(scales=[[6, 0.5], [3, 0.25], [0, 1.0]]), PAYLOAD, "I8"),
    "a negative length": lambda: forge(body(scales=[[10, 0.5], [-1, 0.25]]), PAYLOAD, "I8"),
    "a negative scale": lambda: forge(body(scales=[[6, -0.5], [2, 0.25], [1, 1.0]]), PAYLOAD, "I8"),
    "an infinite scale": lambda: forge(body(), PAYLOAD, "I8").replace(b"[6,0.5]", b"[6,Infinity]"),
    "a huge scale": lambda: forge(body(scales=[[6, 1e30], [2, 0.25], [1, 1.0]]), PAYLOAD, "I8"),
    "a whole number as scale": lambda: forge(body(scales=[[6, 1], [2, 0.25], [1, 1.0]]), PAYLOAD, "I8"),
    "text as scale": lambda: forge(body(scales=[[6, "0.5"], [2, 0.25], [1, 1.0]]), PAYLOAD, "I8"),
    "values of scale 0": lambda: forge(body(scales=[[6, 0.0], [2, 0.25], [1, 1.0]]), PAYLOAD, "I8"),
    "minus 128": lambda: forge(body(PAYLOAD - 1), PAYLOAD - 1, "I8"),
    "named as float32": lambda: forge(body(encoding="f32", scales=None), PAYLOAD, "I8"),
    "another type than named": lambda: forge(body(HALF), HALF, "F16"),
    "labelled as another type": lambda: forge(body(HALF[:8], encoding="f16", scales=None), HALF[:8], "F32"),
    "no known encoding": lambda: forge(body(encoding="f64"), PAYLOAD, "I8"),
    "an odd number of bytes": lambda: forge(body(HALF, encoding="f16", scales=None), HALF, "F16")[:-1],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_encoding_is_refused(name: str) -> None:
    with pytest.raises(WireError):
        wire.decode_reply(HOSTILE[name](), key(1).public_hex)


def test_no_more_values_come_in_fewer_bytes() -> None:
    data = wire.encode(update(PAYLOAD), PAYLOAD, key(1))
    wire.decode_reply(data, key(1).public_hex, wire.Limits(elements=9))
    with pytest.raises(WireError, match="too large"):
        wire.decode_reply(data, key(1).public_hex, wire.Limits(elements=8))


@given(st.integers(0, 200), st.binary(max_size=3))
@settings(max_examples=100, deadline=None)
def test_spliced_bytes_give_a_wire_error(place: int, middle: bytes) -> None:
    data = wire.encode(update(PAYLOAD), PAYLOAD, key(1))
    spliced = data[:-place] + middle + data[len(data) - place + len(middle) :] if place else data + middle
    if spliced != data:
        with pytest.raises(WireError):
            wire.decode_reply(spliced, key(1).public_hex)


def test_orders_and_refusals_stay_float32() -> None:
    refusal = Refusal(1, None, Code.WORK)
    with pytest.raises(WireError, match="float32"):
        wire.encode(refusal, torch.zeros(0, dtype=torch.int8), key(1))
