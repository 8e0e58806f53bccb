"""Messages as bytes: a safetensors container of one flat tensor and one signed JSON entry.

::

    8 bytes   length N of the header, little-endian
    N bytes   {"__metadata__": {"fedser": ENVELOPE},
               "flat": {"dtype": "F32", "shape": [P], "data_offsets": [0, 4P]}}, padded with spaces
    4P bytes  the tensor, little-endian

An update may be written as ``F16`` (2P bytes) or ``I8`` (P bytes): its body names the encoding, and for ``I8`` the
scales. A masked one is ``U32`` or ``U64``. Orders are ``F32``; messages without a tensor have an empty one.

ENVELOPE is canonical JSON (sorted keys, no spaces): ``{"body": …, "kind": "order"|"update"|…, "signature": hex}``,
where a kind is the name of a class of :mod:`fedser.federation.schema` or ``secure_schema`` in small letters, with an
Ed25519 signature over the kind and the body. The body names the tensor's
SHA-256, so the signature covers the tensor too. There is exactly one way to write a message: what differs
from its own re-encoding is refused. Nothing here executes, imports or unpickles what it reads, and each
decoder raises :class:`~fedser.errors.WireError` and nothing else, whatever the bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from fedser.bundle.keys import SigningKey, verify
from fedser.errors import SignatureError, WireError
from fedser.federation.compress import unpacked
from fedser.federation.container import NAMES
from fedser.federation.container import Limits as Limits
from fedser.federation.container import canonical as _canonical
from fedser.federation.container import parsed as _json
from fedser.federation.container import read as _open
from fedser.federation.container import write as _container
from fedser.federation.layout import elements, raw_bytes, tensor_digest
from fedser.federation.schema import Order, Refusal, Update
from fedser.federation.secure_schema import (
    Asked,
    Consent,
    KeysOrder,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Revealed,
    Roster,
    Said,
    Survivors,
    Unmask,
)

Message = Order | Update | Refusal | Asked | Said
ASKED = (Order, KeysOrder, Roster, Survivors, Unmask)  # what a provider sends
_HINT = "Ask the other side which version of fedser it runs; if they agree, treat the message as hostile."
_CLASSES = (*ASKED, Update, Refusal, MaskKeys, MaskShares, MaskedUpdate, Consent, Revealed)
_KINDS: dict[str, TypeAdapter[Any]] = {kind.__name__.lower(): TypeAdapter(kind) for kind in _CLASSES}
_WITH_TENSOR = (Order, Update, MaskedUpdate)
_MASKED = {32: torch.uint32, 64: torch.uint64}

DEFAULT = Limits()
NOTHING = torch.zeros(0)  # the tensor of a message that has none


@dataclass(frozen=True)
class Opened:
    """A message whose signature fits, the tensor beside it [P], and the signature, in hexadecimal."""

    message: Message
    flat: Tensor
    signature: str


def order_digest(order: Message) -> str:
    """SHA-256 of an order or any other message, in hexadecimal: what an update answers."""
    return hashlib.sha256(signed_bytes(order)).hexdigest()


def signed_bytes(message: Message) -> bytes:
    """What a message's signature is over."""
    kind = _kind(message)
    return _domain(kind) + canonical(message).encode()


def canonical(message: Message) -> str:
    """A message's one form as JSON."""
    return _canonical(_plain(_kind(message), message))


def encode(message: Message, flat: Tensor, key: SigningKey) -> bytes:
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
        "signature": key.sign(signed_bytes(message)).hex(),
    }
    return _container(_canonical(envelope), raw_bytes(flat), NAMES[flat.dtype])


def decode_order(data: bytes, signer: str, limits: Limits = DEFAULT) -> tuple[Order, Tensor]:
    """Read an order and its tensor, float32 [P].

    Args:
        data: the bytes as they came.
        signer: the provider's public order key, in hexadecimal.
        limits: sizes above which nothing is parsed.

    Raises:
        WireError: with the reason.
    """
    opened = read(data, signer, limits)
    if not isinstance(opened.message, Order):
        raise WireError("An order was expected and something else came.", _HINT)
    return opened.message, opened.flat


def decode_reply(data: bytes, signer: str, limits: Limits = DEFAULT) -> tuple[Update | Refusal, Tensor]:
    """Read a site's answer: an update and its tensor, restored to float32, or a refusal and an empty one.

    Args:
        data: the bytes as they came.
        signer: the site's public key, in hexadecimal.
        limits: sizes above which nothing is parsed.

    Raises:
        WireError: with the reason.
    """
    opened = read(data, signer, limits)
    message, flat = opened.message, opened.flat
    if isinstance(message, Update):
        return message, unpacked(message, flat)
    if not isinstance(message, Refusal):
        raise WireError("A reply was expected and something else came.", _HINT)
    return message, flat


def read(data: bytes, signer: str, limits: Limits = DEFAULT) -> Opened:
    """Read a message of any kind; the caller looks at which one came.

    Raises:
        WireError: with the reason.
    """
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
    return Opened(message, flat, signature)


def _check_tensor(message: Message, flat: Tensor) -> None:
    """Raise WireError unless the tensor is the one that the message names."""
    if isinstance(message, Update) and flat.ndim == 1:
        unpacked(message, flat)
    elif isinstance(message, MaskedUpdate):
        if flat.ndim != 1 or flat.dtype != _MASKED[message.modulus]:
            raise WireError("The tensor is not of the masked sum's integers.", _HINT)
    elif flat.ndim != 1 or flat.dtype != torch.float32:
        raise WireError("The tensor is not flat float32.", _HINT)
    if not isinstance(message, _WITH_TENSOR):
        if flat.numel():
            raise WireError(f"A message came with a tensor, and a {_kind(message)} has none.", _HINT)
        return
    if isinstance(message, Order) and elements(message.layout) != flat.numel():
        raise WireError("The tensor's length is not the layout's.", _HINT)
    if tensor_digest(flat) != message.tensor_digest:
        raise WireError("The tensor is not the one that was signed.", _HINT)


def _plain(kind: str, message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = _KINDS[kind].dump_python(message, mode="json")
    return plain


def _kind(message: Message) -> str:
    return type(message).__name__.lower()


def _domain(kind: str) -> bytes:
    return f"fedser/{kind}/1\n".encode()
