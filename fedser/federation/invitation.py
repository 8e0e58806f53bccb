"""The invitation: one owner-only file that a provider gives to one site, and all that the site needs to trust it.

It pins the provider's certificate authority, the key that signs the bundle and the key that signs orders, and
holds the site's one-time token. Whoever holds the file can enrol in the site's name until the token is used,
so it travels over a channel that both people trust.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from pydantic import AfterValidator, Field, StringConstraints

from fedser import files
from fedser.config import Settings, validate
from fedser.errors import ConfigError, EnrolmentError
from fedser.federation.schema import PROTOCOL, Digest, Name

_LIMIT = 32_768  # bytes of an invitation; a real one has about 1,500
_AGAIN = "Ask the provider for a new invitation."
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)")

Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{22}$")]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``; an IPv6 host stands in brackets there and bare in the result.

    Raises:
        ValueError: it is none.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not _HOST.fullmatch(host):
        raise ValueError("an address has the form HOST:PORT; an IPv6 address stands in brackets")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise ValueError("the port is a number from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _address(value: str) -> str:
    split_address(value)
    return value


Address = Annotated[str, AfterValidator(_address)]


class Invitation(Settings):
    """What one site is told.

    Attributes:
        fedser_invitation: version of this format.
        protocol: version of the messages between the nodes.
        study, site: names, as in every order.
        address: ``host:port`` of the provider's node.
        ca: PEM of the certificate authority that the node's certificate must lead to.
        ca_sha256: SHA-256 of that certificate's DER bytes, for comparison by telephone.
        bundle_key: Ed25519 public key that must have signed the bundle, in hexadecimal; None where it was not known
            yet: then the order key has to vouch for it, and the site keeps to the first one.
        order_key: the one that signs orders, or whose chain of renewals leads to it.
        token: 128 random bits, good for one node key.
        expires: Unix time, in seconds, after which the token enrols nobody.
    """

    fedser_invitation: Literal[1] = 1
    protocol: Literal[1] = PROTOCOL
    study: Name
    site: Name
    address: Address
    ca: Annotated[str, Field(max_length=16_384)]
    ca_sha256: Digest
    bundle_key: Digest | None = None
    order_key: Digest
    token: Annotated[Token, Field(repr=False)]
    expires: Annotated[int, Field(ge=0, lt=2**53)]

    @property
    def host(self) -> str:
        """The provider's host, without port and brackets."""
        return split_address(self.address)[0]

    @property
    def port(self) -> int:
        """The provider's port."""
        return split_address(self.address)[1]

    def write(self, path: Path) -> None:
        """Write the file for its owner only.

        Raises:
            OutputError: the place cannot be written.
        """
        files.write_text(path, json.dumps(self.model_dump(), indent=1) + "\n", mode=0o600)

    @classmethod
    def read(cls, path: Path, *, now: float | None = None) -> Invitation:
        """Read an invitation.

        Args:
            path: the file.
            now: Unix time to hold against ``expires``; the clock's without one. ``0`` reads an expired one:
                a site that is enrolled needs its token no more.

        Raises:
            ConfigError: the file cannot be read, is damaged, or is no invitation.
            EnrolmentError: it is for another protocol than this fedser speaks, or has expired.
        """
        values = _object(path)
        _check_versions(values, path)
        invitation = validate_invitation(values, path)
        if (time.time() if now is None else now) > invitation.expires:
            day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(invitation.expires))
            raise EnrolmentError(f"The invitation {path} expired on {day}.", _AGAIN)
        return invitation


def validate_invitation(values: dict[str, object], path: Path) -> Invitation:
    """Build an invitation from its parsed file, and check what it pins.

    Raises:
        ConfigError: a key is missing, unknown or damaged, or the CA is not the one whose digest it names.
    """
    try:
        invitation = validate(Invitation, values, f"The invitation {path}")
    except ConfigError as error:
        raise ConfigError(str(error), _AGAIN) from None
    if certificate_digest(invitation.ca) != invitation.ca_sha256:
        raise ConfigError(f"The certificate in the invitation {path} is not the one whose digest it names.", _AGAIN)
    return invitation


def certificate_digest(pem: str) -> str | None:
    """SHA-256, in hexadecimal, of a PEM certificate's DER bytes; None where the text holds no single certificate."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode("ascii"))
    except ValueError:
        return None
    return found[0].fingerprint(SHA256()).hex() if len(found) == 1 else None


def _object(path: Path) -> dict[str, object]:
    """The file's JSON object."""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigError(f"{path} is not a file.", "Name the invitation's file.")
            data = file.read(_LIMIT + 1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"The invitation {path} cannot be read: {reason}.", "Name the invitation's file.") from None
    try:
        values = json.loads(data) if len(data) <= _LIMIT else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or "fedser_invitation" not in values:
        raise ConfigError(f"{path} is damaged, or no invitation.", _AGAIN)
    return values


def _check_versions(values: dict[str, object], path: Path) -> None:
    """Say plainly which version does not fit, before any key is looked at."""
    if values["fedser_invitation"] != 1 or values.get("protocol") != PROTOCOL:
        found = values.get("protocol") if values["fedser_invitation"] == 1 else values["fedser_invitation"]
        what = "protocol" if values["fedser_invitation"] == 1 else "format"
        raise EnrolmentError(
            f"The invitation {path} is for {what} version {found!r:.20}; this fedser speaks version {PROTOCOL}.",
            "Install the version of fedser that the provider runs, or ask for an invitation made with this one.",
        )
