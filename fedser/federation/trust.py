"""The provider's chain of trust: how its keys were renewed, each step signed by the key before.

An invitation pins a key for orders and a certificate authority. Each line of ``trust.jsonl`` renews one or both
and is signed by the order key that was good until then, so a site walks from the key it pinned to today's:

    {"sequence": n, "order_key": hex, "ca": PEM, "signed_by": hex of the key before, "signature": hex}

The signature is over ``fedser/trust/1``, a newline and the canonical JSON of the line without it. A chain that
does not contain what the site has seen before is refused: nobody can take a site back to a key that was retired.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.config import Settings, validate
from fedser.errors import ConfigError, EnrolmentError, RollbackError, SignatureError
from fedser.federation.schema import Digest

MAX_STEPS, MAX_LINE = 1000, 32_768
_PREFIX = b"fedser/trust/1\n"
_HINT = "Ask the provider whether its keys were renewed, and for a new invitation if so."


class Step(Settings):
    """One renewal; ``signature`` is the previous order key's."""

    sequence: Annotated[int, Field(ge=1, le=MAX_STEPS, strict=True)]
    order_key: Digest
    ca: Annotated[str, Field(max_length=16_384)]
    signed_by: Digest
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return _signed_bytes(self.model_dump(exclude={"signature"}))


@dataclass(frozen=True)
class Trusted:
    """What a site trusts after walking the chain.

    Attributes:
        sequence: length of the chain that led here.
        order_key: the key that signs orders now.
        cas: PEM of the authorities to accept: the newest last, and before it the one it replaced, so that a
            node that has not yet taken up its new certificate is no stranger.
    """

    sequence: int
    order_key: str
    cas: tuple[str, ...] = ()


def renew(lines: Sequence[str], signer: SigningKey, *, order_key: str, ca: str) -> str:
    """The next line of a chain.

    Args:
        lines: the chain so far.
        signer: the order key that is good until now.
        order_key: the key that is good from now on, in hexadecimal; may be the same.
        ca: PEM of the authority from now on; may be the same.
    """
    body = {"sequence": len(lines) + 1, "order_key": order_key, "ca": ca, "signed_by": signer.public_hex}
    return json.dumps({**body, "signature": signer.sign(_signed_bytes(body)).hex()}, sort_keys=True)


def walk(pinned_key: str, lines: Sequence[str], *, ca: str | None = None, seen: Trusted | None = None) -> Trusted:
    """Follow the chain from a pinned order key.

    Args:
        pinned_key: the order key of the invitation, in hexadecimal.
        lines: the provider's chain as received; empty where nothing was ever renewed.
        ca: PEM of the invitation's authority.
        seen: the result of the last walk, if there was one.

    Raises:
        EnrolmentError: the chain is malformed, skips a step, or does not lead on from the pinned key.
        SignatureError: a step is not signed by the key before it.
        RollbackError: the chain is shorter than the one seen before, or another one.
    """
    steps = _parse(lines)
    if seen is not None and len(steps) < seen.sequence:
        raise RollbackError(f"The provider's chain of keys ends at step {len(steps)}, before {seen.sequence}.", _HINT)
    key, authorities = pinned_key, [ca] if ca else []
    start = _start(steps, pinned_key)
    passed = _matches(seen, start, key, authorities)
    for step in steps[start:]:
        if step.signed_by != key:
            raise SignatureError(f"Step {step.sequence} of the provider's chain is not by the key before it.", _HINT)
        keys.verify(key, step.signed_bytes(), bytes.fromhex(step.signature))
        key = step.order_key
        authorities = [*(known for known in authorities if known != step.ca), step.ca][-2:]
        passed = passed or _matches(seen, step.sequence, key, authorities)
    if not passed:
        raise RollbackError("The provider's chain of keys is not the one seen before.", _HINT)
    return Trusted(len(steps), key, tuple(authorities))


def vouch(order_key: SigningKey, study: str, signer: str) -> str:
    """The order key's word for a bundle's signer, for sites whose invitation names none; in hexadecimal."""
    return order_key.sign(_vouched(study, signer)).hex()


def check_vouch(order_key: str, study: str, signer: str, signature: str) -> None:
    """Check that word.

    Raises:
        SignatureError: it is not this order key's for this study and signer.
    """
    try:
        given = bytes.fromhex(signature)
    except ValueError:
        given = b""
    keys.verify(order_key, _vouched(study, signer), given)


def _vouched(study: str, signer: str) -> bytes:
    return b"fedser/signer/1\n" + json.dumps({"signer": signer, "study": study}, sort_keys=True).encode()


def _matches(seen: Trusted | None, sequence: int, key: str, authorities: Sequence[str]) -> bool:
    """Whether the walk stands where the last one ended."""
    return seen is None or (seen.sequence, seen.order_key, seen.cas) == (sequence, key, tuple(authorities))


def _start(steps: Sequence[Step], pinned: str) -> int:
    """Index of the first step that the pinned key signed; the length where the chain ends at that key."""
    for index, step in enumerate(steps):
        if step.signed_by == pinned:
            return index
    if not steps or steps[-1].order_key == pinned:
        return len(steps)
    raise EnrolmentError("The provider's chain of keys does not lead on from the invitation's key.", _HINT)


def _parse(lines: Sequence[str]) -> list[Step]:
    """Typed steps, numbered from 1 without a gap; nothing is verified yet."""
    if len(lines) > MAX_STEPS or any(len(line) > MAX_LINE for line in lines):
        raise EnrolmentError("The provider's chain of keys is too long.", _HINT)
    steps = []
    for number, line in enumerate(lines, 1):
        try:
            step = validate(Step, json.loads(line), f"Step {number} of the provider's chain of keys")
        except (ConfigError, ValueError, RecursionError):
            raise EnrolmentError(f"Step {number} of the provider's chain of keys is malformed.", _HINT) from None
        if step.sequence != number:
            raise EnrolmentError(f"The provider's chain of keys lacks step {number}.", _HINT)
        steps.append(step)
    return steps


def _signed_bytes(body: dict[str, object]) -> bytes:
    return _PREFIX + json.dumps(body, sort_keys=True, separators=(",", ":")).encode("utf-8")
