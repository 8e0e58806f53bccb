"""The wire: one way to write a message, and WireError for everything else."""

from __future__ import annotations

import json
import struct
from dataclasses import FrozenInstanceError, asdict, replace

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors

from fedser.bundle.keys import SigningKey
from fedser.errors import WireError
from fedser.federation import wire
from fedser.federation.layout import elements, pack, tensor_digest, unpack
from fedser.federation.schema import Code, Order, Refusal, Scalars, Update, Work

KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))
LAYOUT = (("head.weight", (2, 3)), ("head.bias", (2,)))
FLAT = torch.arange(8, dtype=torch.float32) / 8
WORK = Work(
    steps=10, start=0, total=30, batch_size=64, learning_rate=3e-3, momentum=0.9, weight_decay=1e-3,
    decay=0.75, input_noise=0.2, backbone_scale=1.0,
)  # fmt: skip
ORDER = Order(
    protocol=1, study="study-1", round=1, attempt=0, site="a", phase="train", method="ecan",
    options={"tau": 0.1, "neighbours": 5, "bank": "bank", "head": False}, work=WORK, seed=7, layout=LAYOUT,
    tensor_digest=tensor_digest(FLAT), expires=2_000_000_000,
)  # fmt: skip
UPDATE = Update(
    protocol=1, order_digest=wire.order_digest(ORDER), tensor_digest=tensor_digest(FLAT), utterances=100,
    scalars=Scalars(loss=1.5, confidence=0.5, diversity=0.9),
)  # fmt: skip
ORDER_BYTES = wire.encode(ORDER, FLAT, KEY)
UPDATE_BYTES = wire.encode(UPDATE, FLAT, KEY)


def forge(kind: str, body: object, flat: torch.Tensor = FLAT, key: SigningKey = KEY) -> bytes:
    """A correctly signed container around any body."""
    signature = key.sign(f"fedser/{kind}/1\n".encode() + wire._canonical(body).encode()).hex()
    return container({"body": body, "kind": kind, "signature": signature}, flat)


def container(envelope: object, flat: torch.Tensor = FLAT) -> bytes:
    return wire._container(wire._canonical(envelope), flat.numpy().tobytes())


def body(message: Order | Update | Refusal) -> dict:
    return json.loads(json.dumps(asdict(message)))


def test_messages_come_back_as_they_went() -> None:
    order, flat = wire.decode_order(ORDER_BYTES, KEY.public_hex)
    assert order == ORDER
    assert torch.equal(flat, FLAT)
    update, flat = wire.decode_reply(UPDATE_BYTES, KEY.public_hex)
    assert update == UPDATE
    assert torch.equal(flat, FLAT)
    refusal = Refusal(protocol=1, order_digest=None, code=Code.RADIUS)
    assert wire.decode_reply(wire.encode(refusal, torch.zeros(0), KEY), KEY.public_hex)[0] == refusal


def test_encoding_is_deterministic_and_plain_safetensors() -> None:
    assert wire.encode(ORDER, FLAT, KEY) == ORDER_BYTES
    assert torch.equal(load_safetensors(ORDER_BYTES)["flat"], FLAT)


def test_an_empty_tensor_answers_the_last_order() -> None:
    empty = torch.zeros(0)
    data = wire.encode(replace(UPDATE, tensor_digest=tensor_digest(empty)), empty, KEY)
    assert wire.decode_reply(data, KEY.public_hex)[1].shape == (0,)


def test_messages_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ORDER.round = 2  # type: ignore[misc]


def test_another_signer_is_refused() -> None:
    with pytest.raises(WireError, match="signature"):
        wire.decode_order(ORDER_BYTES, OTHER.public_hex)
    with pytest.raises(WireError, match="signature"):
        wire.decode_order(ORDER_BYTES, "no key")


def test_a_signature_is_bound_to_the_kind() -> None:
    refusal = {"protocol": 1, "order_digest": None, "code": 1}
    signature = KEY.sign(b"fedser/order/1\n" + wire._canonical(refusal).encode()).hex()
    data = container({"body": refusal, "kind": "refusal", "signature": signature}, torch.zeros(0))
    with pytest.raises(WireError, match="signature"):
        wire.decode_reply(data, KEY.public_hex)


def test_an_order_is_no_reply_and_the_reverse() -> None:
    with pytest.raises(WireError, match="expected"):
        wire.decode_reply(ORDER_BYTES, KEY.public_hex)
    with pytest.raises(WireError, match="expected"):
        wire.decode_order(UPDATE_BYTES, KEY.public_hex)


@pytest.mark.parametrize("position", range(0, len(ORDER_BYTES), 7))
def test_every_flipped_byte_is_noticed(position: int) -> None:
    data = bytearray(ORDER_BYTES)
    data[position] ^= 0x01
    with pytest.raises(WireError):
        wire.decode_order(bytes(data), KEY.public_hex)


@pytest.mark.parametrize(
    "change",
    [
        {"round": 0}, {"round": -1}, {"round": 1.0}, {"round": "1"}, {"round": True}, {"round": 10**30},
        {"attempt": None}, {"study": ""}, {"study": "../x"}, {"study": "x" * 65}, {"study": "a\n"},
        {"method": "os.system"}, {"options": {"tau": [1, 2]}}, {"options": {"tau": {"a": 1}}},
        {"options": {f"k{n}": 1 for n in range(33)}}, {"options": {"a": "free text here"}},
        {"phase": "test"}, {"seed": 2**63}, {"layout": []}, {"layout": [["a", [2, 4]], ["a", [0]]]},
        {"layout": [["head.weight", [8]], ["head.weight", [1]]]}, {"layout": [["a", [-8]]]},
        {"layout": [["a", [7]]]}, {"layout": [["a b", [8]]]}, {"layout": [["a", [2**31, 2**31, 2**31]]]},
        {"tensor_digest": "0" * 64}, {"tensor_digest": "A" * 64}, {"expires": -1}, {"protocol": 2},
        {"work": {**asdict(WORK), "steps": 31}}, {"work": {**asdict(WORK), "batch_size": 0}},
        {"work": {**asdict(WORK), "learning_rate": 1}}, {"work": {**asdict(WORK), "extra": 1}},
        {"work": None}, {"code": "import os"},
    ],
)  # fmt: skip
def test_a_signed_order_off_the_schema_is_refused(change: dict) -> None:
    # "method": "os.system" is on the wire schema (a name); the gate knows the methods. All else fails here.
    data = forge("order", {**body(ORDER), **change})
    if change == {"method": "os.system"}:
        assert wire.decode_order(data, KEY.public_hex)[0].method == "os.system"
    else:
        with pytest.raises(WireError):
            wire.decode_order(data, KEY.public_hex)


@pytest.mark.parametrize(
    "change",
    [
        {"utterances": 0}, {"utterances": -1}, {"utterances": 1e12}, {"utterances": 10**12},
        {"utterances": [10, 20]}, {"scalars": {"loss": 1.0}},
        {"scalars": {"loss": 1.0, "confidence": 2.0, "diversity": 0.5}},
        {"scalars": {"loss": [1.0], "confidence": 0.5, "diversity": 0.5}},
        {"scalars": {"loss": 1.0, "confidence": 0.5, "diversity": 0.5, "seconds": 3.0}},
        {"speaker": "f1"}, {"note": "text"}, {"order_digest": None}, {"tensor_digest": "0" * 64},
    ],
)  # fmt: skip
def test_a_signed_update_off_the_schema_is_refused(change: dict) -> None:
    with pytest.raises(WireError):
        wire.decode_reply(forge("update", {**body(UPDATE), **change}), KEY.public_hex)


def test_nan_in_the_entry_is_refused() -> None:
    text = wire._canonical({"body": body(UPDATE), "kind": "update", "signature": "00"}).replace("1.5", "NaN")
    with pytest.raises(WireError):
        wire.decode_reply(wire._container(text, FLAT.numpy().tobytes()), KEY.public_hex)


def test_a_second_tensor_or_another_type_is_refused() -> None:
    length = struct.unpack("<Q", UPDATE_BYTES[:8])[0]
    header = json.loads(UPDATE_BYTES[8 : 8 + length])
    for tensors in (
        {"flat": {**header["flat"], "dtype": "I32"}},
        {"flat": {**header["flat"], "shape": [2, 4]}},
        {"flat": {**header["flat"], "data_offsets": [0, 28]}},
        {"features": header["flat"]},
        {"flat": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
         "bank": {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]}},
    ):  # fmt: skip
        text = json.dumps({"__metadata__": header["__metadata__"], **tensors}, separators=(",", ":")).encode()
        data = len(text).to_bytes(8, "little") + text + UPDATE_BYTES[8 + length :]
        with pytest.raises(WireError):
            wire.decode_reply(data, KEY.public_hex)


def test_hidden_metadata_is_refused() -> None:
    length = struct.unpack("<Q", UPDATE_BYTES[:8])[0]
    header = json.loads(UPDATE_BYTES[8 : 8 + length])
    header["__metadata__"]["note"] = "the patient said"
    text = json.dumps(header, separators=(",", ":")).encode()
    with pytest.raises(WireError):
        wire.decode_reply(len(text).to_bytes(8, "little") + text + UPDATE_BYTES[8 + length :], KEY.public_hex)


def test_sizes_are_checked_before_parsing() -> None:
    with pytest.raises(WireError, match="too large"):
        wire.decode_order(ORDER_BYTES, KEY.public_hex, wire.Limits(elements=7))
    with pytest.raises(WireError, match="header"):
        wire.decode_order(ORDER_BYTES, KEY.public_hex, wire.Limits(header=100))
    with pytest.raises(WireError):
        wire.decode_order((2**63).to_bytes(8, "little") + b"{}", KEY.public_hex)


def test_a_deeply_nested_entry_is_refused() -> None:
    text = "[" * 100_000 + "]" * 100_000
    data = len(text).to_bytes(8, "little") + text.encode()
    with pytest.raises(WireError):
        wire.decode_order(data, KEY.public_hex)
    with pytest.raises(WireError):
        wire.decode_order(wire._container('{"body":' + text + "}", b""), KEY.public_hex)


@given(st.binary(max_size=400))
@example(b"")
@example(bytes(8))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode_order(data, KEY.public_hex)
    with pytest.raises(WireError):
        wire.decode_reply(data, KEY.public_hex)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(body(ORDER))), JSON)
@settings(max_examples=300, deadline=None)
def test_any_signed_value_in_a_field_is_read_or_a_wire_error(field: str, value: object) -> None:
    changed = {**body(ORDER), field: value}
    try:
        order, _ = wire.decode_order(forge("order", changed), KEY.public_hex)
    except WireError:
        return
    assert body(order) == changed


@given(st.integers(0, len(UPDATE_BYTES) - 1), st.integers(0, len(UPDATE_BYTES)), st.binary(max_size=6))
@settings(max_examples=200, deadline=None)
def test_spliced_messages_give_a_wire_error(start: int, length: int, middle: bytes) -> None:
    data = UPDATE_BYTES[:start] + middle + UPDATE_BYTES[start + length :]
    if data != UPDATE_BYTES:
        with pytest.raises(WireError):
            wire.decode_reply(data, KEY.public_hex)


def test_a_message_that_does_not_fit_its_tensor_is_not_written() -> None:
    with pytest.raises(WireError, match="signed"):
        wire.encode(UPDATE, FLAT + 1, KEY)
    with pytest.raises(WireError, match="length"):
        wire.encode(ORDER, FLAT[:4], KEY)
    with pytest.raises(WireError, match="encoding"):
        wire.encode(UPDATE, FLAT.double(), KEY)


def test_packing_and_unpacking() -> None:
    tensors = unpack(FLAT, LAYOUT)
    assert tensors["head.bias"].tolist() == [0.75, 0.875]
    assert elements(LAYOUT) == 8
    assert torch.equal(pack(tensors, LAYOUT), FLAT)
    with pytest.raises(ValueError, match="layout"):
        unpack(FLAT[:7], LAYOUT)
    with pytest.raises(ValueError, match="layout"):
        pack({**tensors, "head.bias": torch.zeros(3)}, LAYOUT)
