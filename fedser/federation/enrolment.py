"""A site's request to be enrolled: its token, its two public keys, and proofs that it holds both private halves.

Both proofs are signatures over ``fedser/enrol/1``, a newline and the canonical JSON of the request without them:
ECDSA with SHA-256 by the key that authenticates the node, Ed25519 by the key that signs its replies.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from pydantic import ConfigDict, Field, StringConstraints

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.config import Settings
from fedser.errors import KeyFileError, SignatureError
from fedser.federation.invitation import Token
from fedser.federation.schema import PROTOCOL, Digest, Name

PREFIX = b"fedser/enrol/1\n"
MAX_BYTES = 8192  # of a request's body
_PROOFS = {"node_proof", "reply_proof"}
_HINT = "Make the site's keys anew: join with another --state folder."


class EnrolRequest(Settings):
    """The body of ``POST /v1/fedser/enrol``.

    Attributes:
        protocol: version of the messages that the site speaks.
        study, site, token: as in the invitation.
        node_key: PEM of an EC P-384 public key, which authenticates the node to Flower's protocol.
        reply_key: Ed25519 public key that signs the site's replies, in hexadecimal.
        node_proof: ECDSA signature (DER), in hexadecimal.
        reply_proof: Ed25519 signature, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    protocol: int
    study: Name
    site: Name
    token: Annotated[Token, Field(repr=False)]
    node_key: Annotated[str, Field(max_length=1024)]
    reply_key: Digest
    node_proof: Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{2}){8,128}$")]
    reply_proof: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

    def signed_bytes(self) -> bytes:
        """What both proofs are over."""
        return signed_bytes(self.model_dump(exclude=_PROOFS))


def request(
    study: str, site: str, token: str, node_key: ec.EllipticCurvePrivateKey, reply_key: SigningKey
) -> EnrolRequest:
    """The request of an invited site, with both proofs."""
    pem = node_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")
    body: dict[str, Any] = {
        "protocol": PROTOCOL,
        "study": study,
        "site": site,
        "token": token,
        "node_key": pem,
        "reply_key": reply_key.public_hex,
    }
    data = signed_bytes(body)
    proofs = {
        "node_proof": node_key.sign(data, ec.ECDSA(hashes.SHA256())).hex(),
        "reply_proof": reply_key.sign(data).hex(),
    }
    return EnrolRequest.model_validate(body | proofs)


def signed_bytes(body: dict[str, Any]) -> bytes:
    """The bytes that both keys sign, from a request's fields without the proofs."""
    return PREFIX + json.dumps(body, sort_keys=True, separators=(",", ":")).encode("utf-8")


def public_node_key(pem: str) -> ec.EllipticCurvePublicKey:
    """The key that authenticates a node.

    Raises:
        KeyFileError: the text is no PEM of an EC P-384 public key.
    """
    try:
        key = load_pem_public_key(pem.encode("ascii"))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KeyFileError("The node key is no EC P-384 public key in PEM.", _HINT)
    return key


def canonical_pem(key: ec.EllipticCurvePublicKey) -> str:
    """The one PEM text of a key; the same key can be written in several ways."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def check_proofs(asked: EnrolRequest) -> str:
    """Check that the site holds both private keys, and return the canonical PEM of its node key.

    Raises:
        KeyFileError: the node key is no EC P-384 public key.
        SignatureError: one of the proofs is not this key's over this request.
    """
    key, data = public_node_key(asked.node_key), asked.signed_bytes()
    try:
        key.verify(bytes.fromhex(asked.node_proof), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise SignatureError("The proof of the node key is not this key's over this request.", _HINT) from None
    keys.verify(asked.reply_key, data, bytes.fromhex(asked.reply_proof))
    return canonical_pem(key)
