"""Masks: the key stream of the RFC, sums that are exact, payloads that look uniform."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from fedser.privacy import masking
from fedser.privacy.masking import Bits

BITS: tuple[Bits, ...] = (32, 64)


def quarter(s: list[int], a: int, b: int, c: int, d: int) -> None:
    for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        s[x] = (s[x] + s[y]) & 0xFFFFFFFF
        s[z] ^= s[x]
        s[z] = (s[z] << turn | s[z] >> (32 - turn)) & 0xFFFFFFFF


def slow_stream(key: bytes, blocks: int) -> bytes:
    """ChaCha20 of RFC 8439, section 2.3, with a nonce of zeros, word by word."""
    found = b""
    for counter in range(blocks):
        start = list(struct.unpack("<16I", b"expand 32-byte k" + key + struct.pack("<4I", counter, 0, 0, 0)))
        s = list(start)
        for _ in range(10):
            for places in ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)):
                quarter(s, *places)
            for places in ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)):
                quarter(s, *places)
        found += struct.pack("<16I", *((x + y) & 0xFFFFFFFF for x, y in zip(s, start, strict=True)))
    return found


def test_the_slow_stream_is_the_rfcs() -> None:
    """RFC 8439, appendix A.1, test vectors 1 and 2."""
    assert slow_stream(bytes(32), 2).hex().startswith("76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc")
    assert slow_stream(bytes(32), 2)[64:].hex().startswith("9f07e7be5551387a98ba977c732d080d")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("key", [bytes(32), bytes(range(32))])
def test_a_mask_is_the_key_stream(bits: Bits, key: bytes) -> None:
    total = np.zeros(45, dtype=masking.TYPES[bits])  # no whole number of 64-byte blocks
    masking.add_stream(total, key)
    assert total.tobytes() == slow_stream(key, 6)[: total.nbytes]


@pytest.mark.parametrize("bits", BITS)
def test_long_masks_are_one_stream(bits: Bits) -> None:
    """Worked on in parts, and yet one stream: a longer mask begins as a shorter one does."""
    size = 3 * masking._BLOCK // (bits // 8) + 17
    long, short = np.zeros(size, dtype=masking.TYPES[bits]), np.zeros(size // 2, dtype=masking.TYPES[bits])
    masking.add_stream(long, bytes(32))
    masking.add_stream(short, bytes(32))
    assert np.array_equal(long[: len(short)], short)
    assert len(np.unique(long[: 2**16])) > 2**16 - 100


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(BITS), st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**31))
def test_masks_cancel_exactly(bits: Bits, sites: int, size: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    most = 2 ** (bits - 1) // sites
    values = chance.integers(-most + 1, most, (sites, size), dtype=np.int64)
    seeds = {(a, b): chance.bytes(32) for a in range(sites) for b in range(a + 1, sites)}
    own = [chance.bytes(32) for _ in range(sites)]
    total = np.zeros(size, dtype=masking.TYPES[bits])
    for site in range(sites):
        pairs = [(seeds[min(site, o), max(site, o)], 1 if o > site else -1) for o in range(sites) if o != site]
        masking.add(total, masking.masked(values[site], bits, own[site], pairs))
    for mask in own:
        masking.add_stream(total, mask, -1)
    assert [int(value) for value in masking.from_ring(total)] == [sum(map(int, column)) for column in values.T]


@pytest.mark.parametrize("bits", BITS)
def test_every_integer_goes_into_the_ring_and_back(bits: Bits) -> None:
    edge = 2 ** (bits - 1)
    values = np.array([0, 1, -1, edge - 1, -edge, 12345, -54321], dtype=np.int64)
    assert np.array_equal(masking.from_ring(masking.to_ring(values, bits)), values)
    assert masking.to_ring(values, bits).tolist() == [int(value) % 2**bits for value in values]


def test_room_is_that_of_the_sum() -> None:
    assert masking.has_room(32, 3, (2**31 - 1) // 3)
    assert not masking.has_room(32, 4, 2**29)
    values = [np.array([2**29], dtype=np.int64)] * 4
    total = masking.to_ring(values[0], 32)
    for value in values[1:]:
        masking.add(total, masking.to_ring(value, 32))
    assert masking.from_ring(total)[0] == -(2**31)  # what has no room comes out as something else


def test_a_payload_looks_uniform_whatever_is_under_the_mask() -> None:
    """χ² over the 256 values of each byte, at a chance of 1e-10; without a mask the same test sees the zeros."""
    integers = np.zeros(2**16, dtype=np.int64)
    for values, uniform in ((masking.masked(integers, 32, bytes(range(32)), []), True), (integers, False)):
        counts = np.bincount(np.frombuffer(values.astype("<u4").tobytes(), dtype=np.uint8), minlength=256)
        expected = counts.sum() / 256
        assert (float(((counts - expected) ** 2 / expected).sum()) < float(chi2.isf(1e-10, 255))) == uniform
