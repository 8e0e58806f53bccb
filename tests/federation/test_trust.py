"""The chain of renewals: a site walks it from the key it pinned, and never back."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.bundle.keys import SigningKey
from fedser.errors import EnrolmentError, FedserError, RollbackError, SignatureError
from fedser.federation import trust


def key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


class Chain:
    """Order keys K0 → K1 → K1 (a new authority) → K2, as a provider writes them."""

    def __init__(self) -> None:
        self.keys = [key(), key(), key()]
        self.lines: list[str] = []
        self.step(0, 1, "CA0")
        self.step(1, 1, "CA1")
        self.step(1, 2, "CA1")

    def step(self, signer: int, following: int, ca: str) -> None:
        self.lines.append(trust.renew(self.lines, self.keys[signer], order_key=self.keys[following].public_hex, ca=ca))

    def public(self, index: int) -> str:
        return self.keys[index].public_hex


@pytest.fixture
def chain() -> Chain:
    return Chain()


def test_nothing_renewed_keeps_what_was_pinned() -> None:
    assert trust.walk("ab" * 32, [], ca="CA0") == trust.Trusted(0, "ab" * 32, ("CA0",))


@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_every_pinned_key_leads_to_the_newest(chain: Chain, pinned: int) -> None:
    found = trust.walk(chain.public(pinned), chain.lines, ca="CA1" if pinned == 2 else "CA0")
    assert (found.sequence, found.order_key, found.cas[-1]) == (3, chain.public(2), "CA1")


def test_the_authority_before_is_accepted_too_but_no_older_one(chain: Chain) -> None:
    assert trust.walk(chain.public(0), chain.lines, ca="CA0").cas == ("CA0", "CA1")
    chain.step(2, 2, "CA2")
    assert trust.walk(chain.public(0), chain.lines, ca="CA0").cas == ("CA1", "CA2")


@pytest.mark.parametrize("pinned", [0, 1, 2])
def test_a_site_goes_on_from_where_it_stood(chain: Chain, pinned: int) -> None:
    first = {0: 0, 1: 1, 2: 3}[pinned]  # the chain's length when this key was the newest: the site is invited then
    seen = None
    for length in range(first, 4):
        seen = trust.walk(chain.public(pinned), chain.lines[:length], ca="CA0", seen=seen)
        assert seen.sequence == length
        assert trust.walk(chain.public(pinned), chain.lines[:length], ca="CA0", seen=seen) == seen


def test_a_shorter_chain_than_seen_is_refused(chain: Chain) -> None:
    seen = trust.walk(chain.public(0), chain.lines, ca="CA0")
    for length in range(3):
        with pytest.raises(RollbackError):
            trust.walk(chain.public(0), chain.lines[:length], ca="CA0", seen=seen)


def test_another_chain_of_a_retired_key_is_refused(chain: Chain) -> None:
    seen = trust.walk(chain.public(0), chain.lines, ca="CA0")
    thief = key()
    other: list[str] = []
    for signer in (chain.keys[0], thief, thief, thief):
        other.append(trust.renew(other, signer, order_key=thief.public_hex, ca="CA9"))
    assert trust.walk(chain.public(0), other).order_key == thief.public_hex  # a site that saw nothing cannot know
    with pytest.raises(RollbackError):
        trust.walk(chain.public(0), other, ca="CA0", seen=seen)


def _edited(**changes: object) -> Callable[[Chain], list[str]]:
    return lambda chain: [chain.lines[0], json.dumps(json.loads(chain.lines[1]) | changes), chain.lines[2]]


def _by_stranger(chain: Chain) -> list[str]:
    stranger = key()
    step = json.loads(trust.renew(chain.lines[:1], stranger, order_key=stranger.public_hex, ca="CA9"))
    return [chain.lines[0], json.dumps(step)]


def _by_stranger_in_anothers_name(chain: Chain) -> list[str]:
    step = json.loads(_by_stranger(chain)[1]) | {"signed_by": chain.public(1)}
    return [chain.lines[0], json.dumps(step)]


def _retired_signer(chain: Chain) -> list[str]:
    return [*chain.lines, trust.renew(chain.lines, chain.keys[0], order_key=chain.public(0), ca="CA0")]


FORGED: dict[str, tuple[Callable[[Chain], list[str]], type[FedserError]]] = {
    "another key in a signed step": (_edited(order_key="cd" * 32), SignatureError),
    "another authority in a signed step": (_edited(ca="CA9"), SignatureError),
    "a damaged signature": (_edited(signature="0" * 128), SignatureError),
    "a step by a stranger": (_by_stranger, SignatureError),
    "a step by a stranger in the right name": (_by_stranger_in_anothers_name, SignatureError),
    "a step by a retired key": (_retired_signer, SignatureError),
    "a skipped step": (lambda chain: [chain.lines[0], chain.lines[2]], EnrolmentError),
    "a step twice": (lambda chain: [chain.lines[0], *chain.lines], EnrolmentError),
    "a changed number": (_edited(sequence=7), EnrolmentError),
    "a number as text": (_edited(sequence="2"), EnrolmentError),
    "an unknown field": (_edited(note="trust me"), EnrolmentError),
    "no JSON": (lambda chain: ["{", *chain.lines[1:]], EnrolmentError),
    "deep JSON": (lambda chain: ["[" * 30_000], EnrolmentError),
    "a huge line": (lambda chain: [chain.lines[0] + " " * 40_000], EnrolmentError),
    "too many lines": (lambda chain: chain.lines * 500, EnrolmentError),
    "another provider's chain": (lambda _: Chain().lines, EnrolmentError),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_chain_is_refused(chain: Chain, name: str) -> None:
    forge, error = FORGED[name]
    with pytest.raises(error) as caught:
        trust.walk(chain.public(0), forge(chain), ca="CA0")
    assert caught.value.hint


def test_a_signature_for_another_purpose_is_no_step(chain: Chain) -> None:
    body = {"sequence": 4, "order_key": "cd" * 32, "ca": "CA9", "signed_by": chain.public(2)}
    plain = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    line = json.dumps({**body, "signature": chain.keys[2].sign(plain).hex()})
    with pytest.raises(SignatureError):
        trust.walk(chain.public(0), [*chain.lines, line], ca="CA0")


_FIELDS = ("sequence", "order_key", "ca", "signed_by", "signature", "x")
_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70) | st.just("ab" * 32)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.text(max_size=60) | st.dictionaries(st.sampled_from(_FIELDS), _VALUES).map(json.dumps),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_is_sent_only_our_own_errors_come_out(lines: list[str]) -> None:
    with pytest.raises(FedserError):
        trust.walk("ab" * 32, lines)
