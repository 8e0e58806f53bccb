"""A site's word that it leaves a study: signed by the key that signs its replies, good once and for good.

The proof is an Ed25519 signature over ``fedser/leave/1``, a newline and the canonical JSON of the rest. A captured
one brings nothing: the provider shuts the key out at the first, and a key that was shut out never enrols again.
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.config import Settings
from fedser.federation.schema import PROTOCOL, Digest, Name

PATH = "/v1/fedser/leave"
PREFIX = b"fedser/leave/1\n"
MAX_BYTES = 2048  # of a request's body


class LeaveRequest(Settings):
    """The body of ``POST /v1/fedser/leave``.

    Attributes:
        protocol: version of the messages that the site speaks.
        study, site: as in the invitation.
        reply_key: the Ed25519 public key that it enrolled with, in hexadecimal.
        proof: Ed25519 signature, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    protocol: int
    study: Name
    site: Name
    reply_key: Digest
    proof: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

    def signed_bytes(self) -> bytes:
        """What the proof is over."""
        body = self.model_dump(exclude={"proof"})
        return PREFIX + json.dumps(body, sort_keys=True, separators=(",", ":")).encode("utf-8")


def request(study: str, site: str, key: SigningKey) -> LeaveRequest:
    """The request of an enrolled site, with its proof."""
    bare = LeaveRequest(protocol=PROTOCOL, study=study, site=site, reply_key=key.public_hex, proof="0" * 128)
    return bare.model_copy(update={"proof": key.sign(bare.signed_bytes()).hex()})


def check(asked: LeaveRequest) -> None:
    """Check that the site holds the private key.

    Raises:
        SignatureError: the proof is not this key's over this request.
    """
    keys.verify(asked.reply_key, asked.signed_bytes(), bytes.fromhex(asked.proof))
