"""Ed25519 keys: the provider signs bundles with the private half, sites verify with the public half.

A private key is a PKCS8 PEM file that only its owner may read. Beside it lies ``NAME.pub``, the public key as
64 hexadecimal digits: what goes into an invitation or after ``--signer``.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from fedser import files
from fedser.errors import KeyFileError, OutputError, SignatureError

SIGNATURE_BYTES = 64
PUBLIC_HEX = 64
_KEY_FILE_LIMIT = 16_384  # a PEM key has some 120 bytes; nothing that is a key is larger


@dataclass(frozen=True)
class SigningKey:
    """A private signing key. Its representation shows the public half only."""

    _private: Ed25519PrivateKey

    @property
    def public_hex(self) -> str:
        """The public key as 64 lower-case hexadecimal digits."""
        return self._private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    def sign(self, data: bytes) -> bytes:
        """The detached Ed25519 signature (64 bytes) over ``data``."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        """The public half; the private one never reaches a log."""
        return f"SigningKey(public_hex='{self.public_hex}')"


def create(path: Path) -> SigningKey:
    """Make a key pair: ``path`` (private, owner-only) and ``path`` + ``.pub`` beside it.

    Raises:
        KeyFileError: one of the two files is there already; a key is never overwritten.
        OutputError: the place cannot be written.
    """
    public = public_path(path)
    for taken in (path, public):
        if taken.exists() or taken.is_symlink():
            raise KeyFileError(f"{taken} exists already.", "Choose another name: a key is never overwritten.")
    key = SigningKey(Ed25519PrivateKey.generate())
    pem = key._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        files.write_text(public, key.public_hex + "\n")
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path, error) from None
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return key


def _unwritable(path: Path, error: OSError) -> OutputError:
    reason = (error.strerror or str(error)).lower()
    return OutputError(f"{path} cannot be written: {reason}.", "Choose a place with write permission and free space.")


def public_path(path: Path) -> Path:
    """Where the public half of the private key file ``path`` lies."""
    return path.with_name(path.name + ".pub")


def default_path() -> Path:
    """The user's own signing key, in the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "fedser" / "signing-key"


def load(path: Path) -> SigningKey:
    """Read a private key.

    Raises:
        KeyFileError: it is missing, is no Ed25519 key, or other users may read it.
    """
    data = _read(path, private=True)
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(
            f"{path} holds no Ed25519 private key without a passphrase.",
            "Make one with 'fedser keys create'.",
        )
    return SigningKey(key)


def signer(value: str) -> str:
    """A public key in hexadecimal from what a person gives: the 64 digits, or a file (``.pub`` or PEM).

    Raises:
        KeyFileError: it is neither.
    """
    if _is_hex_key(value):
        return value.lower()
    path = Path(value)
    data = _read(path, private=False)
    text = data.decode("ascii", errors="replace").strip()
    if _is_hex_key(text):
        return text.lower()
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(
            f"{path} holds no Ed25519 public key.",
            "Name the signer's .pub file, or give its 64 hexadecimal digits.",
        )
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def verify(public_hex: str, data: bytes, signature: bytes) -> None:
    """Check a detached signature.

    Args:
        public_hex: the key that must have signed, 64 hexadecimal digits.
        data: the signed bytes.
        signature: 64 bytes.

    Raises:
        SignatureError: the signature is not this key's over these bytes.
    """
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise SignatureError(
            f"The signature is not the one of the signer {public_hex[:16]}… over these bytes.",
            "Fetch file and signature again, and compare the signer's key with the provider.",
        ) from None


def fingerprint(public_hex: str) -> str:
    """What two people compare of a public key: SHA-256 of its 32 bytes, 64 hexadecimal digits."""
    return digest(bytes.fromhex(public_hex))


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _is_hex_key(text: str) -> bool:
    return len(text) == PUBLIC_HEX and all(letter in "0123456789abcdefABCDEF" for letter in text)


def _read(path: Path, *, private: bool) -> bytes:
    """A key file's bytes; a private one only where nobody but the owner may open it."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise KeyFileError(f"{path} is not a file.", "Name a key file.")
            if private and os.name == "posix" and about.st_mode & 0o077:
                raise KeyFileError(f"{path} is open to other users.", f"Run: chmod 600 '{path}'")
            data = file.read(_KEY_FILE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        hint = "Make one with 'fedser keys create'." if private else "Give 64 hexadecimal digits, or a .pub file."
        raise KeyFileError(f"The key {path} cannot be read: {reason}.", hint) from None
    if len(data) > _KEY_FILE_LIMIT:
        raise KeyFileError(f"{path} is too large for a key.", "Name a key file.")
    return data
