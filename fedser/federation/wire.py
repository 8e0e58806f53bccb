"""Messages as bytes: a safetensors container of one flat tensor and one signed JSON entry.

::

    8 bytes   length N of the header, little-endian
    N bytes   {"__metadata__": {"fedser": ENVELOPE},
               "flat": {"dtype": "F32", "shape": [P], "data_offsets": [0, 4P]}}, padded with spaces
    4P bytes  the tensor, little-endian

An update may be written as ``F16`` (2P bytes) or ``I8`` (P bytes): its body names the encoding, and for ``I8`` the
scales. Orders are ``F32``.

ENVELOPE is canonical JSON (sorted keys, no spaces): ``{"body": …, "kind": "order"|"update"|"refusal",
"signature": hex}``, with an Ed25519 signature over the kind and the body. The body names the tensor's
SHA-256, so the signature covers the tensor too. There is exactly one way to write a message: what differs
from its own re-encoding is refused. Nothing here executes, imports or unpickles what it reads, and each
decoder raises :class:`~fedser.errors.WireError` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedser.bundle.keys import SigningKey, verify
from fedser.errors import SignatureError, WireError
from fedser.federation.compress import unpacked
from fedser.federation.layout import elements, raw_bytes, tensor_digest
from fedser.federation.schema import Order, Refusal, Update

_HINT = "Ask the other side which version of fedser it runs; if they agree, treat the message as hostile."
_KINDS: dict[str, TypeAdapter[Any]] = {
    "order": TypeAdapter(Order),
    "update": TypeAdapter(Update),
    "refusal": TypeAdapter(Refusal),
}
_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I8": np.dtype("i1")}
_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.int8: "I8"}


@dataclass(frozen=True)
class Limits:
    """Sizes above which a message is refused before anything of it is parsed.

    Attributes:
        header: bytes of the header.
        elements: values of the tensor.
    """

    header: int = 1 << 20
    elements: int = 1 << 28


DEFAULT = Limits()


def order_digest(order: Order) -> str:
    """SHA-256 of an order, in hexadecimal: what an update answers."""
    return hashlib.sha256(_signed("order", order)).hexdigest()


def encode(message: Order | Update | Refusal, flat: Tensor, key: SigningKey) -> bytes:
    """Sign a message and lay it out as bytes.

    Args:
        message: an order or update names the digest of ``flat``; a refusal goes with an empty tensor.
        flat: float32 [P]; of an update, as :mod:`fedser.federation.compress` wrote it.
        key: the provider's order key or the site's own.

    Raises:
        WireError: message and tensor do not belong together.
    """
    kind = _kind(message)
    _check_tensor(message, flat)
    envelope = {
        "body": _plain(kind, message),
        "kind": kind,
        "signature": key.sign(_signed(kind, message)).hex(),
    }
    return _container(_canonical(envelope), raw_bytes(flat), _NAMES[flat.dtype])


def decode_order(data: bytes, signer: str, limits: Limits = DEFAULT) -> tuple[Order, Tensor]:
    """Read an order and its tensor, float32 [P].

    Args:
        data: the bytes as they came.
        signer: the provider's public order key, in hexadecimal.
        limits: sizes above which nothing is parsed.

    Raises:
        WireError: with the reason.
    """
    message, flat = _decode(data, signer, limits)
    if not isinstance(message, Order):
        raise WireError("An order was expected and something else came.", _HINT)
    return message, flat


def decode_reply(data: bytes, signer: str, limits: Limits = DEFAULT) -> tuple[Update | Refusal, Tensor]:
    """Read a site's answer: an update and its tensor, restored to float32, or a refusal and an empty one.

    Args:
        data: the bytes as they came.
        signer: the site's public key, in hexadecimal.
        limits: sizes above which nothing is parsed.

    Raises:
        WireError: with the reason.
    """
    message, flat = _decode(data, signer, limits)
    if isinstance(message, Order):
        raise WireError("A reply was expected and an order came.", _HINT)
    return message, unpacked(message, flat) if isinstance(message, Update) else flat


def _decode(data: bytes, signer: str, limits: Limits) -> tuple[Order | Update | Refusal, Tensor]:
    text, flat = _open(data, limits)
    envelope = _json(text)
    if set(envelope) != {"body", "kind", "signature"} or _canonical(envelope) != text:
        raise WireError("The message's entry is not in its one canonical form.", _HINT)
    kind, signature = envelope["kind"], envelope["signature"]
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(signature, str):
        raise WireError("The message is of no known kind.", _HINT)
    body = _canonical(envelope["body"])
    try:
        if bytes.fromhex(signature).hex() != signature:
            raise ValueError("upper case or spaces")
        verify(signer, _domain(kind) + body.encode(), bytes.fromhex(signature))
    except (SignatureError, ValueError):
        raise WireError("The message's signature is not the expected sender's.", _HINT) from None
    try:
        message = _KINDS[kind].validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"The {kind} is not on the schema at '{where}': {first['type']}.", _HINT) from None
    if _canonical(_plain(kind, message)) != body:
        raise WireError(f"The {kind} writes a value in another form than the schema's.", _HINT)
    _check_tensor(message, flat)
    return message, flat


def _check_tensor(message: Order | Update | Refusal, flat: Tensor) -> None:
    """Raise WireError unless the tensor is the one that the message names."""
    if isinstance(message, Update) and flat.ndim == 1:
        unpacked(message, flat)
    elif flat.ndim != 1 or flat.dtype != torch.float32:
        raise WireError("The tensor is not flat float32.", _HINT)
    if isinstance(message, Refusal):
        if flat.numel():
            raise WireError("A refusal came with a tensor.", _HINT)
        return
    if isinstance(message, Order) and elements(message.layout) != flat.numel():
        raise WireError("The tensor's length is not the layout's.", _HINT)
    if tensor_digest(flat) != message.tensor_digest:
        raise WireError("The tensor is not the one that was signed.", _HINT)


def _container(entry: str, payload: bytes | memoryview, dtype: str = "F32") -> bytes:
    header = _header(entry, len(payload), dtype)
    return b"".join((len(header).to_bytes(8, "little"), header, payload))


def _header(entry: str, size: int, dtype: str) -> bytes:
    width = _TYPES[dtype].itemsize
    tensor = {"dtype": dtype, "shape": [size // width], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"fedser": entry}, "flat": tensor}, separators=(",", ":"))
    return (text + " " * (-len(text) % 8)).encode()  # the payload starts at a multiple of 8 bytes


def _open(data: bytes, limits: Limits) -> tuple[str, Tensor]:
    """The entry's text and the tensor [P] of a container; sizes are checked before anything is parsed."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > limits.header or 8 + length > len(data):
        raise WireError("The message is cut short or its header is too long.", _HINT)
    size = len(data) - 8 - length
    if size > 4 * limits.elements:
        raise WireError("The message's tensor is too large.", _HINT)
    header = data[8 : 8 + length]
    try:
        parsed = _json(header.decode("utf-8"))
        entry, dtype = parsed["__metadata__"]["fedser"], _TYPES[parsed["flat"]["dtype"]]
        faithful = isinstance(entry, str) and _header(entry, size, parsed["flat"]["dtype"]) == header
    except (UnicodeError, KeyError, TypeError):
        faithful = False
    if not faithful:
        raise WireError("The message is not one flat tensor with one entry.", _HINT)
    if size % dtype.itemsize or size > dtype.itemsize * limits.elements:
        raise WireError("The message's tensor is too large or cut short.", _HINT)
    values = np.frombuffer(data, dtype=dtype, offset=8 + length)
    return entry, torch.from_numpy(values.astype(dtype.newbyteorder("=")))


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("The message's entry is not JSON.", _HINT) from None
    if not isinstance(value, dict):
        raise WireError("The message's entry is not a JSON object.", _HINT)
    return value


def _canonical(value: object) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise WireError("The message's entry holds what cannot be written.", _HINT) from None


def _plain(kind: str, message: Order | Update | Refusal) -> dict[str, Any]:
    plain: dict[str, Any] = _KINDS[kind].dump_python(message, mode="json")
    return plain


def _kind(message: Order | Update | Refusal) -> str:
    return type(message).__name__.lower()


def _domain(kind: str) -> bytes:
    return f"fedser/{kind}/1\n".encode()


def _signed(kind: str, message: Order | Update | Refusal) -> bytes:
    return _domain(kind) + _canonical(_plain(kind, message)).encode()
