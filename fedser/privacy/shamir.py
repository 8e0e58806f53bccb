"""Secrets in shares: any ``threshold`` of them give the secret back, fewer tell nothing at all.

Shamir 1979, "How to share a secret": a polynomial of degree ``threshold`` − 1 over the integers modulo a prime, whose
value at 0 is the secret and whose other coefficients are uniform; the holder of place i has its value at i, i ≥ 1.
The prime is the first one above 2²⁵⁶, so that a secret of 32 bytes is one number and Python's own integers, which
multiply such numbers in a fraction of a microsecond, do all the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache

from fedser.errors import WireError
from fedser.privacy.randomness import random_bytes

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33
_HINT = "Treat the message as hostile: no site of this version writes it."


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """Share a secret among holders.

    Args:
        secret: 32 bytes.
        threshold: how many shares give it back.
        holders: how many there are, at places 1 to ``holders``.

    Returns:
        The share of each place, 33 bytes each.

    Raises:
        ValueError: the secret has another length, or no threshold between 1 and ``holders`` was given.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders:
        raise ValueError(f"{len(secret)} bytes cannot be shared {threshold} of {holders}")
    coefficients = [int.from_bytes(secret, "big"), *(_uniform(PRIME) for _ in range(threshold - 1))]
    return [value_at(coefficients, place, PRIME).to_bytes(SHARE_BYTES, "big") for place in range(1, holders + 1)]


def recover(shares: Mapping[int, bytes], threshold: int, fits: Callable[[bytes], bool]) -> bytes:
    """Give a secret back, past a false share where there are more shares than needed.

    Args:
        shares: by the holder's place.
        threshold: how many are needed.
        fits: whether what came out is the secret, from what is publicly known of it.

    Raises:
        WireError: too few shares, or no ``threshold`` neighbouring ones of them give a secret that fits.
    """
    if len(shares) < threshold:
        raise WireError(f"{len(shares)} shares of a secret came, and {threshold} are needed.", _HINT)
    for places in _choices(sorted(shares), threshold):
        values = {place: int.from_bytes(shares[place], "big") for place in places}
        number = interpolate(values, PRIME)
        if number < 2**256 and fits(number.to_bytes(SECRET_BYTES, "big")):
            return number.to_bytes(SECRET_BYTES, "big")
    raise WireError("The shares of a secret do not belong together.", "One of the sites sent a false one.")


def is_share(data: bytes) -> bool:
    """Whether bytes are a share: 33 of them, below the prime."""
    return len(data) == SHARE_BYTES and int.from_bytes(data, "big") < PRIME


def value_at(coefficients: Sequence[int], place: int, prime: int) -> int:
    """A polynomial's value, by Horner's rule; ``coefficients[0]`` is its value at 0."""
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * place + coefficient) % prime
    return value


def interpolate(values: Mapping[int, int], prime: int) -> int:
    """The value at 0 of the polynomial of least degree through the given points (Lagrange)."""
    weights = _weights(tuple(values), prime)
    return sum(weight * value for weight, value in zip(weights, values.values(), strict=True)) % prime


@lru_cache(maxsize=64)
def _weights(places: tuple[int, ...], prime: int) -> tuple[int, ...]:
    """What each place's value counts at 0: the same for all secrets that the same holders give back."""
    weights = []
    for place in places:
        above, below = 1, 1
        for other in places:
            if other != place:
                above = above * other % prime
                below = below * (other - place) % prime
        weights.append(above * pow(below, -1, prime) % prime)
    return tuple(weights)


def _choices(places: Sequence[int], threshold: int) -> Iterator[list[int]]:
    """``threshold`` neighbouring places, from each place on: a single false share is left out by some of them."""
    turns = len(places) if len(places) > threshold else 1
    for begin in range(turns):
        yield [places[(begin + step) % len(places)] for step in range(threshold)]


def _uniform(below: int) -> int:
    """A uniform integer of [0, below): draws outside are drawn again."""
    size = (below.bit_length() + 7) // 8
    while True:
        number = int.from_bytes(random_bytes(size), "big") >> (8 * size - below.bit_length())
        if number < below:
            return number
