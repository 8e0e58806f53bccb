"""Who calls: Flower's signed headers, checked before a byte of the body is read, and each of them once.

Flower signs a timestamp, with a window of five minutes and no nonce: a header that somebody caught could go with
other bodies all that time. TLS ends in this process, so nobody catches one; and here each is good for one request.
"""

from __future__ import annotations

import binascii
import hashlib
import time
from base64 import b64decode
from collections import deque
from collections.abc import Container, Iterable
from datetime import UTC, datetime

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from fedser.errors import EnrolmentError

_HINT = "Look whether this site's clock is right, and whether the provider revoked it."
_LONGEST = 2048  # bytes of a header


class Credentials:
    """Checks the headers of one request after the other. Not thread-safe: for one event loop."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()  # digests: a key in PEM is ten times as long
        self._order: deque[tuple[float, bytes]] = deque()

    def check(self, headers: Iterable[tuple[bytes, bytes]], known: Container[bytes]) -> bytes:
        """The node key, PEM, whose holder made this request.

        Args:
            headers: raw, with lower-case names.
            known: node keys that are let in; nothing is verified for others.

        Raises:
            EnrolmentError: a header is missing, doubled or malformed, the key is not known, the timestamp is
                outside its window or was used before, or the signature does not fit.
        """
        key, signature, timestamp = _read(headers)
        if key not in known:
            raise EnrolmentError("The node key is not enrolled.", _HINT)
        age = _age(timestamp)
        if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
            raise EnrolmentError("The request's timestamp is too old, or lies ahead.", _HINT)
        if not _verified(key, timestamp, signature):
            raise EnrolmentError("The request's signature is not the node's.", _HINT)
        self._once(hashlib.sha256(key + timestamp.encode("ascii")).digest())
        return key

    def _once(self, mark: bytes) -> None:
        now = time.monotonic()
        while self._order and now - self._order[0][0] > TIMESTAMP_TOLERANCE + 4 * SYSTEM_TIME_TOLERANCE:
            self._seen.discard(self._order.popleft()[1])
        if mark in self._seen:
            raise EnrolmentError("The request's headers were used before.", _HINT)
        self._seen.add(mark)
        self._order.append((now, mark))


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes, str]:
    """Key, signature and timestamp of the headers."""
    wanted = (FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TIMESTAMP_HEADER)
    found: dict[str, bytes] = {}
    for raw, value in headers:
        name = raw.decode("latin-1")
        if name in wanted:
            if name in found or len(value) > _LONGEST:
                raise EnrolmentError("The request's credentials are doubled or too long.", _HINT)
            found[name] = value
    try:
        key, signature = (b64decode(found[name], validate=True) for name in wanted[:2])
        return key, signature, found[TIMESTAMP_HEADER].decode("ascii")
    except (KeyError, ValueError, binascii.Error):
        raise EnrolmentError("The request carries no credentials.", _HINT) from None


def _age(timestamp: str) -> float:
    """Seconds since a timestamp."""
    try:
        moment = datetime.fromisoformat(timestamp)
        return (datetime.now(UTC) - moment).total_seconds()
    except (ValueError, TypeError, OverflowError):
        raise EnrolmentError("The request's timestamp cannot be read.", _HINT) from None


def _verified(key: bytes, timestamp: str, signature: bytes) -> bool:
    try:
        public = bytes_to_public_key(key)
        return isinstance(public, ec.EllipticCurvePublicKey) and verify_signature(
            public, timestamp.encode("ascii"), signature
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
