"""The site's two keys: made here, never sent; the provider learns their public halves at enrolment."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.errors import KeyFileError
from fedser.files import write_bytes
from fedser_client.state import SiteFolder

_HINT = "Restore it from a backup, or ask the provider to invite this site anew and join with another --state."


def node_key(folder: SiteFolder) -> ec.EllipticCurvePrivateKey:
    """The key of Flower's node authentication (SECP384R1); made when missing.

    Raises:
        KeyFileError: the file is damaged or open to other users.
        OutputError: it cannot be written.
    """
    path = folder.file("keys") / "node-key.pem"
    if not path.exists():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        fresh = ec.generate_private_key(ec.SECP384R1())
        write_bytes(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)
    if path.stat().st_mode & 0o077:
        raise KeyFileError(f"{path} is open to other users.", f"Run: chmod 600 '{path}'")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise KeyFileError(f"{path} holds no SECP384R1 private key.", _HINT)
    return key


def reply_key(folder: SiteFolder) -> SigningKey:
    """The key that signs replies (Ed25519); made when missing.

    Raises:
        KeyFileError: the file is damaged or open to other users.
        OutputError: it cannot be written.
    """
    path = folder.file("keys") / "reply-key"
    if path.exists():
        return keys.load(path)
    keys.public_path(path).unlink(missing_ok=True)  # of a private half that a crash kept from being written
    return keys.create(path)
