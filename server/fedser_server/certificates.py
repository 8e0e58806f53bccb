"""Making X.509 certificates: a certificate authority, the server's certificate, and a renewal of the authority.

ECDSA over P-256. A renewed authority has a new key and a new name; a cross certificate, issued by the old one,
lets sites that pinned the old one accept what the new one issues.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFETIME = timedelta(days=20 * 365)
SERVER_LIFETIME = timedelta(days=398)
RENEWALS = 8  # authorities that may stand between the one that a site pinned and the newest
_SKEW = timedelta(days=1)  # a site's clock may be slow by this much


@dataclass(frozen=True)
class Authority:
    """A certificate authority: its own certificate, and the key that issues."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_authority(now: datetime | None = None) -> Authority:
    """A self-signed authority with a new key and a name of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"fedser CA {secrets.token_hex(8)}")])
    start = _now(now)
    made = _builder(name, name, key.public_key(), start - _SKEW, start + CA_LIFETIME, key.public_key())
    return Authority(_as_authority(made).sign(key, hashes.SHA256()), key)


def cross_certificate(new: Authority, old: Authority) -> x509.Certificate:
    """The new authority's name and key, vouched for by the old authority."""
    end = min(new.certificate.not_valid_after_utc, old.certificate.not_valid_after_utc)
    start = max(new.certificate.not_valid_before_utc, old.certificate.not_valid_before_utc)
    made = _builder(
        new.certificate.subject, old.certificate.subject, new.key.public_key(), start, end, old.key.public_key()
    )
    return _as_authority(made).sign(old.key, hashes.SHA256())


def new_server(
    authority: Authority, hosts: Iterable[str], now: datetime | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A server certificate for ``hosts`` (names and IP addresses) and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = _now(now)
    end = min(start + SERVER_LIFETIME, authority.certificate.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedser provider")])
    made = _builder(
        subject, authority.certificate.subject, key.public_key(), start - _SKEW, end, authority.key.public_key()
    )
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    made = made.add_extension(_usage(digital_signature=True), critical=True)
    made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    made = made.add_extension(x509.SubjectAlternativeName([_general(host) for host in sorted(set(hosts))]), False)
    return made.sign(authority.key, hashes.SHA256()), key


def names(certificate: x509.Certificate) -> set[str]:
    """The hosts that a server certificate is good for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    dns = found.get_values_for_type(x509.DNSName)
    return {*dns, *(str(address) for address in found.get_values_for_type(x509.IPAddress))}


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM text."""
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A private key as unencrypted PKCS8 PEM text; only ever for an owner-only file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _now(now: datetime | None) -> datetime:
    return (now or datetime.now(UTC)).replace(microsecond=0)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime,
    end: datetime,
    issuer_key: ec.EllipticCurvePublicKey,
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    return made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)


def _as_authority(made: x509.CertificateBuilder) -> x509.CertificateBuilder:
    """Mark a certificate as an authority's; below it at most its renewals."""
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=RENEWALS), critical=True)
    return made.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host.lower())
