"""Chance that protects: noise, sampling coins and masks from the operating system's source alone.

No function here takes a seed, and no generator of numpy, torch or :mod:`random` is involved: what an attacker could
learn of a seed, of a state or of earlier draws tells nothing of the next one.
"""

from __future__ import annotations

import math
import os

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 18  # values drawn at a time, so that scratch arrays stay small
_SUMMED = 4


def random_bytes(n: int) -> bytes:
    """``n`` bytes of the operating system's source."""
    return os.urandom(n)


def uniform_words(size: int) -> NDArray[np.uint64]:
    """``size`` integers that are uniform on [0, 2⁶⁴)."""
    return np.frombuffer(os.urandom(8 * size), dtype="<u8").astype(np.uint64, copy=False)


def uniform_integers(low: int, high: int, size: int) -> NDArray[np.int64]:
    """``size`` integers that are uniform on [low, high), exactly: words outside the range are drawn again.

    Raises:
        ValueError: the range is empty, or does not fit into 63 bits.
    """
    span = high - low
    if not 1 <= span <= 2**63 or low < -(2**63) or high > 2**63:
        raise ValueError(f"no range of 63-bit integers: [{low}, {high})")
    mask = np.uint64(2 ** (span - 1).bit_length() - 1)
    found = np.empty(size, dtype=np.uint64)
    filled = 0
    while filled < size:
        words = uniform_words(min(size - filled, _CHUNK)) & mask
        words = words[words < np.uint64(span)]
        found[filled : filled + len(words)] = words
        filled += len(words)
    return found.astype(np.int64) + low


def bernoulli(p: float, size: int) -> NDArray[np.bool_]:
    """``size`` coins that show true with probability ``p``, rounded down to a multiple of 2⁻⁶⁴.

    Raises:
        ValueError: ``p`` is no probability.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"{p} is no probability")
    threshold = int(p * 2**64)  # exact: a product with a power of two, cut to whole numbers
    if threshold == 2**64:
        return np.ones(size, dtype=np.bool_)
    return uniform_words(size) < np.uint64(threshold)


def gaussian(size: int, std: float) -> NDArray[np.float64]:
    """``size`` values of a centred normal distribution of standard deviation ``std``.

    Each is half the sum of four Box-Muller values: which floating-point numbers can come out then tells nothing useful
    of the sum that they are added to (Holohan and Braghin 2021, "Secure random sampling in differential privacy",
    section 4, against Mironov 2012). A Box-Muller value ends at 8.57 standard deviations, beyond which a normal one
    lies with a chance of 2⁻⁵³.

    Raises:
        ValueError: ``std`` is negative or not finite.
    """
    if not 0 <= std < math.inf:
        raise ValueError(f"{std} is no standard deviation")
    found = np.empty(size)
    for begin in range(0, size, _CHUNK):
        part = found[begin : begin + _CHUNK]
        part[:] = 0.0
        for _ in range(_SUMMED // 2):
            radius, angle = _unit(len(part)), _unit(len(part))
            length = np.sqrt(-2.0 * np.log(radius))
            part += length * (np.cos(2 * np.pi * angle) + np.sin(2 * np.pi * angle))  # two independent values
        part *= std / math.sqrt(_SUMMED)
    return found


def _unit(size: int) -> NDArray[np.float64]:
    """Multiples of 2⁻⁵³ that are uniform on (0, 1]."""
    return ((uniform_words(size) >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def discrete_gaussian(size: int, std: float) -> NDArray[np.int64]:
    """``size`` integers n with a probability proportional to exp(−n² / 2 std²), exactly.

    See :mod:`fedser.privacy.discrete`.

    Raises:
        ValueError: ``std`` is not positive or above 2⁴⁰.
    """
    from fedser.privacy.discrete import sample

    return sample(size, std)
