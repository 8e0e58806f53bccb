"""Headers that do not fit their data: what can be told from a file without knowing its content.

libsndfile quietly repairs a WAV header that claims more or less than the file holds; here it is reported.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
"""Hz: recordings of speech lie between these rates."""

_SLACK = 0.01
"""Seconds of missing or surplus data that are put down to careless writers."""
_UNCOMPRESSED = {1, 3, 6, 7, 0xFFFE}
_UNKNOWN = {0, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF}
"""Data lengths of writers that could not seek back: the length was not known, so nothing is claimed."""


def implausible_rate(rate: int) -> str | None:
    """One clause where a sample rate cannot be that of a speech recording, else None."""
    if LOWEST_RATE <= rate <= HIGHEST_RATE:
        return None
    return f"it claims {rate} Hz, outside {LOWEST_RATE} to {HIGHEST_RATE} Hz"


def claimed_length(claimed: int, found: int, rate: int) -> str | None:
    """One clause where the header's number of frames is not the number that could be read, else None.

    Headers of streamed FLAC and OGG claim nothing: libsndfile then reports a number beyond any recording.
    """
    if claimed > 1 << 48 or abs(claimed - found) <= max(1.0, _SLACK * rate):
        return None
    return f"it claims {claimed / rate:.3f} s, {found / rate:.3f} s can be read"


def riff_problem(path: Path) -> str | None:
    """One clause where a WAV header contradicts itself or the file's length, else None (other formats too).

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return None
        return _chunks(file, size)


def _chunks(file: BinaryIO, size: int) -> str | None:
    """Walk the chunks up to the data: format first, then the data's claim against what is there."""
    byte_rate = 0
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"fmt ":
            body = file.read(min(length, 16))
            if len(body) < 16:
                return "its format chunk is cut off"
            kind, channels, rate, byte_rate, align, _ = struct.unpack("<HHIIHH", body[:16])
            # Some writers leave the bytes a second empty or forget the channels; the sound is as claimed.
            honest = (0, rate * align, rate * align // max(channels, 1))
            if kind in _UNCOMPRESSED and all(abs(byte_rate - value) > 1 for value in honest):
                return f"it claims {rate} Hz but {byte_rate} bytes a second, which is {_hertz(byte_rate, align)}"
            if kind in _UNCOMPRESSED:
                byte_rate = rate * align
            file.seek(max(length - 16, 0) + length % 2, 1)
        elif name == b"data":
            return _data(file, size - file.tell(), length, byte_rate)
        else:
            file.seek(length + length % 2, 1)
    return None


def _hertz(byte_rate: int, align: int) -> str:
    return f"{byte_rate // align} Hz" if align else "no rate at all"


def _data(file: BinaryIO, there: int, claimed: int, byte_rate: int) -> str | None:
    """Compare the data chunk's length with the bytes behind it; well-formed chunks may follow."""
    slack = max(2.0, _SLACK * byte_rate)
    seconds = byte_rate or 1
    if claimed in _UNKNOWN:
        return None
    if claimed - there > slack:
        return f"it claims {claimed / seconds:.3f} s, {there / seconds:.3f} s are there"
    surplus = there - claimed - claimed % 2
    if surplus <= slack:
        return None
    file.seek(claimed + claimed % 2, 1)
    following = file.read(8)
    is_chunk = following[:4].isascii() and following[:4].decode("ascii").isprintable()
    if is_chunk and struct.unpack("<I", following[4:])[0] <= surplus:
        return None
    return f"it claims {claimed / seconds:.3f} s, {there / seconds:.3f} s are there"
