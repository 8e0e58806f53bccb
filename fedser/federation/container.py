"""One flat tensor and one text entry as bytes, in exactly one way: the shape of all messages on the wire.

It is a safetensors file of one tensor; what differs from its own re-encoding is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedser.errors import WireError

_HINT = "Ask the other side which version of fedser it runs; if they agree, treat the message as hostile."
_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code) for name, code in {"F32": "<f4", "F16": "<f2", "I8": "i1", "U32": "<u4", "U64": "<u8"}.items()
}
NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint32: "U32",
    torch.uint64: "U64",
}
_WIDEST = 8  # bytes of a value


@dataclass(frozen=True)
class Limits:
    """Sizes above which a message is refused before anything of it is parsed.

    Attributes:
        header: bytes of the header.
        elements: values of the tensor.
    """

    header: int = 1 << 20
    elements: int = 1 << 28


def write(entry: str, payload: bytes | memoryview, dtype: str = "F32") -> bytes:
    """A container of one tensor's bytes and one entry."""
    header = _header(entry, len(payload), dtype)
    return b"".join((len(header).to_bytes(8, "little"), header, payload))


def _header(entry: str, size: int, dtype: str) -> bytes:
    width = _TYPES[dtype].itemsize
    tensor = {"dtype": dtype, "shape": [size // width], "data_offsets": [0, size]}
    text = json.dumps({"__metadata__": {"fedser": entry}, "flat": tensor}, separators=(",", ":"))
    return (text + " " * (-len(text) % 8)).encode()  # the payload starts at a multiple of 8 bytes


def read(data: bytes, limits: Limits) -> tuple[str, Tensor]:
    """The entry's text and the tensor [P] of a container; sizes are checked before anything is parsed."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > limits.header or 8 + length > len(data):
        raise WireError("The message is cut short or its header is too long.", _HINT)
    size = len(data) - 8 - length
    if size > _WIDEST * limits.elements:
        raise WireError("The message's tensor is too large.", _HINT)
    header = data[8 : 8 + length]
    try:
        found = parsed(header.decode("utf-8"))
        entry, dtype = found["__metadata__"]["fedser"], _TYPES[found["flat"]["dtype"]]
        faithful = isinstance(entry, str) and _header(entry, size, found["flat"]["dtype"]) == header
    except (UnicodeError, KeyError, TypeError):
        faithful = False
    if not faithful:
        raise WireError("The message is not one flat tensor with one entry.", _HINT)
    if size % dtype.itemsize or size > dtype.itemsize * limits.elements:
        raise WireError("The message's tensor is too large or cut short.", _HINT)
    values = np.frombuffer(data, dtype=dtype, offset=8 + length)
    return entry, torch.from_numpy(values.astype(dtype.newbyteorder("=")))


def parsed(text: str) -> dict[str, Any]:
    """A JSON object from its text.

    Raises:
        WireError: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("The message's entry is not JSON.", _HINT) from None
    if not isinstance(value, dict):
        raise WireError("The message's entry is not a JSON object.", _HINT)
    return value


def canonical(value: object) -> str:
    """A value's one form as JSON: sorted keys, no spaces.

    Raises:
        WireError: it has none.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):
        raise WireError("The message's entry holds what cannot be written.", _HINT) from None
