"""The safetensors envelope: limits, and the one metadata entry, before any tensor is touched.

Layout (github.com/huggingface/safetensors): 8 bytes little-endian length, that many bytes of JSON, the data.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from fedser.errors import BundleFormatError

METADATA_KEY = "fedser"
MAX_HEADER_BYTES = 2**20
MAX_TENSORS = 10_000
_WIDTH = {"F32": 4, "F64": 8, "I64": 8}  # the types that bundles hold, in bytes
_AGAIN = "Fetch the bundle and its signature again from the provider."


def header_text(data: bytes) -> dict[str, Any]:
    """The parsed JSON of the one metadata entry, after the envelope was found in order.

    Raises:
        BundleFormatError: the envelope or the entry is damaged or exceeds a limit.
    """
    if len(data) < 8:
        _damaged("it is too short")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES or length > len(data) - 8:
        _damaged("its header is longer than the file or the limit")
    envelope = _json(data[8 : 8 + length])
    metadata = envelope.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY}:
        _damaged("its metadata is not fedser's")
    if not isinstance(metadata[METADATA_KEY], str):
        _damaged("its metadata is not fedser's")
    if len(envelope) > MAX_TENSORS:
        _damaged("it has too many tensors")
    _check_layout(envelope, len(data) - 8 - length)
    return _json(metadata[METADATA_KEY].encode())


def _check_layout(envelope: dict[str, Any], available: int) -> None:
    """The tensors must fill the data without gap or overlap, each with the bytes that its shape asks for."""
    spans = []
    for entry in envelope.values():
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _damaged("a tensor's entry does not fit")
        if entry["dtype"] not in _WIDTH or not _counts(entry["shape"], 8) or not _counts(entry["data_offsets"], 2):
            _damaged("a tensor has another type or shape than bundles hold")
        size = _WIDTH[entry["dtype"]]
        for extent in entry["shape"]:
            size *= extent
        start, *end = entry["data_offsets"]
        if end != [start + size]:
            _damaged("a tensor's length does not fit its shape")
        spans.append((start, start + size))
    place = 0
    for start, stop in sorted(spans):
        if start != place:
            _damaged("its tensors overlap or leave a gap")
        place = stop
    if place != available:
        _damaged("it is truncated or has bytes at its end that belong to nothing")


def _counts(value: object, most: int) -> bool:
    if not isinstance(value, list) or len(value) > most:
        return False
    return all(type(item) is int and 0 <= item < 2**48 for item in value)


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_damaged)
    except (ValueError, RecursionError):
        _damaged("its header is not JSON")
    if not isinstance(value, dict):
        _damaged("its header is not a mapping")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that comes twice: two readers could take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        _damaged("its header has a key twice")
    return found


def _damaged(reason: str) -> NoReturn:
    raise BundleFormatError(f"This is no bundle, or a damaged one: {reason}.", _AGAIN)
