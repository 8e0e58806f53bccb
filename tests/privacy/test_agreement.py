"""Key agreement, derivation and sealing: the vectors of the RFCs, and what must not open."""

from __future__ import annotations

import hashlib
import hmac
import itertools

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedser.errors import WireError
from fedser.privacy import agreement

# RFC 7748, section 6.1
ALICE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
BOB = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SECRET = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def test_x25519_is_that_of_the_rfc() -> None:
    assert agreement.public_key(ALICE).hex() == ALICE_PUBLIC
    assert agreement.public_key(BOB).hex() == BOB_PUBLIC
    assert agreement.shared_secret(ALICE, bytes.fromhex(BOB_PUBLIC)) == SECRET
    assert agreement.shared_secret(BOB, bytes.fromhex(ALICE_PUBLIC)) == SECRET


def expanded(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """HKDF of RFC 5869, step by step."""
    key = hmac.new(salt, secret, hashlib.sha256).digest()
    block, found = b"", b""
    for number in itertools.count(1):
        block = hmac.new(key, block + info + bytes([number]), hashlib.sha256).digest()
        found += block
        if len(found) >= length:
            return found[:length]
    raise AssertionError


def test_the_oracle_is_the_rfcs_first_case() -> None:
    salt, info = bytes(range(13)), bytes(range(0xF0, 0xFA))
    found = expanded(b"\x0b" * 22, salt, info, 42).hex()
    assert found == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_derived_keys_are_hkdf_of_purpose_and_context() -> None:
    about = b"fedser/pair\0round 3"
    assert agreement.derive(SECRET, "fedser/pair", b"round 3") == expanded(SECRET, b"fedser/masked-sum/1", about, 32)


def test_no_two_purposes_or_contexts_share_a_key() -> None:
    keys = {
        agreement.derive(secret, purpose, context)
        for secret in (SECRET, bytes(32))
        for purpose in ("a", "b", "ab")
        for context in (b"", b"b", b"c")
    }
    assert len(keys) == 18


@pytest.mark.parametrize("public", [bytes(32), bytes([1]) + bytes(31)])
def test_a_public_key_that_fixes_the_secret_is_refused(public: bytes) -> None:
    with pytest.raises(WireError, match="public key"):
        agreement.shared_secret(agreement.private_key(), public)


def test_a_sealed_box_opens_for_its_key_and_context_alone() -> None:
    key, other = agreement.derive(SECRET, "a", b""), agreement.derive(SECRET, "b", b"")
    box = agreement.seal(key, b"share", b"to site-2")
    assert agreement.unseal(key, box, b"to site-2") == b"share"
    assert ChaCha20Poly1305(key).decrypt(box[:12], box[12:], b"to site-2") == b"share"
    altered = [box[:place] + bytes([box[place] ^ 1]) + box[place + 1 :] for place in range(len(box))]
    wrong = [(key, box, b"to site-3"), (other, box, b"to site-2"), (key, box[:-1], b"to site-2"), (key, b"", b"")]
    for used, given, context in [*wrong, *((key, one, b"to site-2") for one in altered)]:
        with pytest.raises(WireError, match="sealed share"):
            agreement.unseal(used, given, context)


def test_keys_and_boxes_are_fresh() -> None:
    assert len({agreement.private_key() for _ in range(100)}) == 100
    assert len({agreement.seal(bytes(32), b"same", b"") for _ in range(100)}) == 100
