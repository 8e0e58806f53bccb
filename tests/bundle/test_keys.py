from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fedser.bundle import keys
from fedser.errors import KeyFileError, OutputError, SignatureError

# RFC 8032, section 7.1, test 2
RFC_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
RFC_SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_the_signature_of_the_rfc_verifies_and_another_message_does_not() -> None:
    keys.verify(RFC_PUBLIC, bytes.fromhex("72"), bytes.fromhex(RFC_SIGNATURE))
    with pytest.raises(SignatureError):
        keys.verify(RFC_PUBLIC, bytes.fromhex("73"), bytes.fromhex(RFC_SIGNATURE))
    with pytest.raises(SignatureError):
        keys.verify("zz" * 32, b"", b"")


def test_a_created_key_signs_and_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    key = keys.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = keys.load(path)
    keys.verify(key.public_hex, b"speech", again.sign(b"speech"))
    assert keys.public_path(path).read_text().strip() == key.public_hex
    assert "PRIVATE" not in repr(key)


def test_a_umask_that_opens_files_does_not_open_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        keys.create(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys.create(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="exists already"):
        keys.create(path)
    assert path.read_bytes() == before
    other = tmp_path / "other"
    keys.public_path(other).write_text("taken")
    with pytest.raises(KeyFileError, match=r"other\.pub exists"):
        keys.create(other)
    assert not other.exists()


def test_a_private_key_that_others_can_read_is_refused_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "key"
    keys.create(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError) as refusal:
        keys.load(path)
    assert f"chmod 600 '{path}'" in refusal.value.hint


@pytest.mark.parametrize("content", [b"", b"not a key", b"\x00" * 20_000])
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError):
        keys.load(path)
    with pytest.raises(KeyFileError):
        keys.signer(str(path))


def test_missing_files_folders_and_other_algorithms_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "missing", tmp_path):
        with pytest.raises(KeyFileError):
            keys.load(place)
    path = tmp_path / "rsa"
    other = rsa.generate_private_key(65537, 2048)
    path.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="Ed25519"):
        keys.load(path)


def test_a_signer_is_digits_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = keys.create(path)
    assert keys.signer(key.public_hex.upper()) == key.public_hex
    assert keys.signer(str(keys.public_path(path))) == key.public_hex
    pem = tmp_path / "key.pem"
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import PublicFormat

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex))
    pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert keys.signer(str(pem)) == key.public_hex
    with pytest.raises(KeyFileError):
        keys.signer("abc\x00def")


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        keys.create(tmp_path / "file" / "key")
