"""Two sites agree on keys through a third party that learns none of them.

X25519 (RFC 7748) makes a secret of one side's private and the other's public key; HKDF with SHA-256 (RFC 5869) makes
of it one key for one purpose in one context, so that nothing made for one round, roster or direction opens anything
of another; ChaCha20-Poly1305 (RFC 8439) seals what the third party relays. Private keys are the operating system's.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedser.errors import WireError
from fedser.privacy.randomness import random_bytes

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
_SALT = b"fedser/masked-sum/1"
_HINT = "Treat the message as hostile, or as one of another round."


def private_key() -> bytes:
    """A fresh X25519 private key, 32 bytes."""
    return random_bytes(KEY_BYTES)


def public_key(private: bytes) -> bytes:
    """The public half of a private key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def shared_secret(private: bytes, public: bytes) -> bytes:
    """What both sides of a pair compute alike, 32 bytes; see :func:`derive` before any use.

    Raises:
        WireError: the public key is one of the few that give every private key the same secret.
    """
    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise WireError("A public key of the masked sum is none.", _HINT) from None


def derive(secret: bytes, purpose: str, context: bytes) -> bytes:
    """A key of 32 bytes for one purpose in one context.

    Args:
        secret: an agreed secret, or a seed.
        purpose: what it is for; no two uses share one.
        context: everything that must be the same on both sides.
    """
    about = purpose.encode() + b"\0" + context
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=_SALT, info=about).derive(secret)


def seal(key: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt so that only the holder of ``key`` reads it, and only where ``context`` is the same.

    Returns:
        A nonce of 12 bytes, the encrypted bytes and a tag of 16.
    """
    nonce = random_bytes(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, context)


def unseal(key: bytes, box: bytes, context: bytes) -> bytes:
    """The bytes that :func:`seal` was given.

    Raises:
        WireError: the box was altered, or sealed with another key or for another context.
    """
    try:
        return ChaCha20Poly1305(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        raise WireError("A sealed share was altered, or is not for this site and round.", _HINT) from None
