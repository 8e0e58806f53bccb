"""Shares: against a slow second way, in fields small enough to look at every secret, and with false shares."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.errors import WireError
from fedser.privacy import shamir

SECRETS = st.binary(min_size=32, max_size=32)


def is_prime(number: int) -> bool:
    """Miller and Rabin's test to forty bases: wrong with a chance below 4⁻⁴⁰."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 42):
        power = pow(base, odd, number)
        if power not in (1, number - 1) and all(
            (power := power * power % number) != number - 1 for _ in range(twos - 1)
        ):
            return False
    return True


def test_the_prime_is_the_first_above_two_to_the_256() -> None:
    assert is_prime(shamir.PRIME)
    assert not any(is_prime(2**256 + odd) for odd in range(1, 297, 2))


@settings(max_examples=60, deadline=None)
@given(SECRETS, st.integers(1, 12), st.integers(0, 6), st.randoms())
def test_any_threshold_of_the_shares_give_the_secret_back(
    secret: bytes, threshold: int, more: int, chance: object
) -> None:
    shares = dict(enumerate(shamir.split(secret, threshold, threshold + more), 1))
    assert all(shamir.is_share(share) for share in shares.values())
    places = chance.sample(sorted(shares), threshold)  # type: ignore[attr-defined]
    assert shamir.recover({place: shares[place] for place in places}, threshold, lambda found: True) == secret
    assert slow({place: int.from_bytes(shares[place], "big") for place in places}) == int.from_bytes(secret, "big")


def slow(values: dict[int, int]) -> int:
    """The value at 0 by Gaussian elimination on the Vandermonde matrix, in place of Lagrange's formula."""
    prime = shamir.PRIME
    rows = [[pow(place, power, prime) for power in range(len(values))] + [value] for place, value in values.items()]
    for column in range(len(rows)):
        pivot = next(row for row in rows[column:] if row[column])
        rows.remove(pivot)
        rows.insert(column, pivot)
        inverse = pow(pivot[column], prime - 2, prime)
        pivot[:] = [entry * inverse % prime for entry in pivot]
        for row in rows:
            if row is not pivot:
                row[:] = [(entry - row[column] * other) % prime for entry, other in zip(row, pivot, strict=True)]
    return rows[0][-1]


@pytest.mark.parametrize(("prime", "threshold", "holders"), [(7, 2, 3), (11, 3, 4), (13, 3, 5)])
def test_fewer_shares_tell_nothing(prime: int, threshold: int, holders: int) -> None:
    """Over all polynomials: whatever ``threshold`` − 1 shares are, each secret explains them equally often."""
    for places in combinations(range(1, holders + 1), threshold - 1):
        seen: dict[tuple[int, ...], Counter[int]] = {}
        for coefficients in product(range(prime), repeat=threshold):
            shares = tuple(shamir.value_at(coefficients, place, prime) for place in places)
            seen.setdefault(shares, Counter())[coefficients[0]] += 1
        assert len(seen) == prime ** (threshold - 1)
        assert all(count == Counter(dict.fromkeys(range(prime), 1)) for count in seen.values())


def test_as_many_shares_as_the_threshold_do_tell_it() -> None:
    """The test above sees it: with one share more, one secret is left."""
    for coefficients in product(range(7), repeat=2):
        values = {place: shamir.value_at(coefficients, place, 7) for place in (1, 3)}
        assert shamir.interpolate(values, 7) == coefficients[0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, shamir.PRIME - 1), min_size=1, max_size=6), st.integers(1, 50))
def test_values_are_those_of_the_polynomial(coefficients: list[int], place: int) -> None:
    exact = sum(Fraction(c) * place**power for power, c in enumerate(coefficients))
    assert shamir.value_at(coefficients, place, shamir.PRIME) == exact % shamir.PRIME


def test_the_coefficients_are_uniform_and_fresh() -> None:
    """A share of a fixed secret is uniform: its first byte takes all values alike, and no two runs agree."""
    shares = [shamir.split(bytes(32), 2, 2)[0] for _ in range(2560)]
    assert len(set(shares)) == len(shares)
    counts = Counter(share[1] for share in shares)  # the byte after the 257th bit
    assert sum((counts[byte] - 10) ** 2 / 10 for byte in range(256)) < 255 + 10 * (2 * 255) ** 0.5


def test_one_false_share_is_left_out_where_there_is_one_to_spare() -> None:
    secret = bytes(range(32))
    shares = dict(enumerate(shamir.split(secret, 3, 5), 1))
    for place in shares:
        false = shares | {place: bytes(33)}
        assert shamir.recover(false, 3, lambda found: found == secret) == secret
    with pytest.raises(WireError, match="do not belong together"):
        shamir.recover({1: bytes(33), 2: shares[2], 3: shares[3]}, 3, lambda found: found == secret)
    with pytest.raises(WireError, match="2 shares"):
        shamir.recover({2: shares[2], 3: shares[3]}, 3, lambda found: True)


def test_what_is_no_share_or_secret_is_refused() -> None:
    assert not shamir.is_share(bytes(32))
    assert not shamir.is_share(b"\xff" * 33)
    for secret, threshold, holders in ((b"short", 2, 3), (bytes(32), 4, 3), (bytes(32), 0, 3)):
        with pytest.raises(ValueError, match="cannot be shared"):
            shamir.split(secret, threshold, holders)
