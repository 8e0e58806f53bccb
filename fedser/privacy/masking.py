"""Masks that cancel in a sum: integers modulo 2³² or 2⁶⁴, and ChaCha20's key stream on top of them.

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", section 4. Site u uploads

    y_u = x_u + PRG(b_u) + Σ_{v after u} PRG(s_uv) − Σ_{v before u} PRG(s_uv)   (modulo 2³² or 2⁶⁴)

with its own seed b_u and a seed s_uv that it has in common with each peer v. In a sum over all, the pairs cancel; the
b of those whose upload came, and the s of those whose did not, are recovered from shares, never both of one site.
Addition modulo a power of two is exact, so the unmasked sum is the sum of the integers, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms
from numpy.typing import NDArray

Bits = Literal[32, 64]
Ring = NDArray[np.unsignedinteger[Any]]
TYPES: dict[Bits, type[np.uint32] | type[np.uint64]] = {32: np.uint32, 64: np.uint64}
_SIGNED = {np.dtype(np.uint32): np.int32, np.dtype(np.uint64): np.int64}
_LITTLE = {np.dtype(np.uint32): "<u4", np.dtype(np.uint64): "<u8"}
_BLOCK = 1 << 20  # bytes of key stream that are worked on at a time: they stay in the processor's cache
_ZEROS = bytes(_BLOCK)


def has_room(bits: Bits, summands: int, largest: float) -> bool:
    """Whether a sum of ``summands`` integers of at most ``largest`` in size is the same modulo 2^bits.

    It is where the sum lies strictly between −2^(bits−1) and 2^(bits−1).
    """
    return summands * largest < (1 << (bits - 1))


def to_ring(integers: NDArray[np.int64], bits: Bits) -> Ring:
    """Integers [P] modulo 2^bits; negative ones stand in the upper half."""
    return integers.astype(np.int64, copy=False).view(np.uint64).astype(TYPES[bits])


def from_ring(values: Ring) -> NDArray[np.int64]:
    """The integers of least size, [P], that values modulo 2^bits stand for."""
    return values.view(_SIGNED[values.dtype]).astype(np.int64)


def add(total: Ring, other: Ring) -> None:
    """Add into ``total`` [P], modulo its own power of two."""
    np.add(total, other, out=total)


def add_stream(total: Ring, seed: bytes, sign: int = 1) -> None:
    """Add a seed's key stream to ``total`` [P], or take it away.

    The stream is ChaCha20's (RFC 8439) from counter 0 with a nonce of zeros, read as little-endian integers of the
    width of ``total``; a seed is used for one stream.

    Args:
        total: values modulo 2³² or 2⁶⁴; at most 2²⁶ blocks of 64 bytes.
        seed: 32 bytes.
        sign: 1 or −1.
    """
    operation = np.add if sign > 0 else np.subtract
    width = total.dtype.itemsize
    stream, buffer = _stream(seed), bytearray(_BLOCK)
    for begin in range(0, len(total), _BLOCK // width):
        part = total[begin : begin + _BLOCK // width]
        size = len(part) * width
        stream.update_into(memoryview(_ZEROS)[:size], memoryview(buffer)[:size])
        operation(part, np.frombuffer(buffer, dtype=_LITTLE[total.dtype], count=len(part)), out=part)


def masked(integers: NDArray[np.int64], bits: Bits, own: bytes, pairs: Iterable[tuple[bytes, int]]) -> Ring:
    """What a site uploads: its integers under its own mask and those it has in common with its peers.

    Args:
        integers: int64 [P].
        bits: of the modulus.
        own: the seed of the site's own mask.
        pairs: the seed in common with each peer, and 1 where the peer stands after this site in the roster, else −1.

    Returns:
        uint32 or uint64 [P]; uniform for whoever lacks one of the seeds.
    """
    total = to_ring(integers, bits)
    add_stream(total, own)
    for seed, sign in pairs:
        add_stream(total, seed, sign)
    return total


def _stream(seed: bytes) -> CipherContext:
    return Cipher(algorithms.ChaCha20(seed, bytes(16)), mode=None).encryptor()
