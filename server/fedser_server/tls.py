"""TLS at the node: version 1.3 only, certificates that can be exchanged while it runs, and own certificates.

A site's side, for comparison: ``ssl.create_default_context(cadata=<CA PEMs>)`` with
``minimum_version = TLSv1_3``, ``check_hostname`` on, and no other authority.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from fedser.errors import ConfigError, FedserError
from fedser_server.certificates import pem

_LIMIT = 2**20  # bytes of a certificate file
_ASK_AGAIN = 3600.0  # seconds


@dataclass(frozen=True)
class Certificates:
    """What a node serves.

    Attributes:
        chain: PEM file with the server's certificate first, then those that lead to the authority.
        key: PEM file with its private key; may be the same file.
        ca: PEM text of the one authority that sites pin.
    """

    chain: Path
    key: Path
    ca: str


def sha256(certificate: str) -> str:
    """SHA-256, in hexadecimal, of a PEM certificate's DER bytes."""
    return x509.load_pem_x509_certificate(certificate.encode("ascii")).fingerprint(SHA256()).hex()


def server_context(certificates: Certificates) -> ssl.SSLContext:
    """The context of a node's listening socket.

    Raises:
        ConfigError: certificate and key cannot be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # no resumption: each connection sees the certificate that is good today
    context.set_alpn_protocols(["http/1.1"])
    _load(context, certificates)
    return context


def client_context(cas: Iterable[str]) -> ssl.SSLContext:
    """What a site holds against a node: these authorities and nothing else. The node checks itself with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata="\n".join(cas))
    return context


class LiveContext:
    """A server context whose certificate can be exchanged while the node runs.

    Args:
        certificates: files that may change at any time.
        renew: issues them anew where that is due; asked from time to time, so that a node which runs for years
            never serves a certificate that has ended.

    Raises:
        ConfigError: they do not belong together now.
    """

    def __init__(self, certificates: Certificates, renew: Callable[[], object] | None = None) -> None:
        self.certificates = certificates
        self._renew, self._asked = renew, time.monotonic()
        self._mark = self._stamp()
        # A context must not change while another thread begins a handshake with it. So the listening one stays as
        # it is, and each handshake is handed to the newest.
        self._newest = self.context = server_context(certificates)
        self.context.sni_callback = self._hand_over

    def reload(self) -> bool:
        """Take up files that changed; connections that are open stay as they are.

        Returns:
            Whether a new certificate is served now. A pair that does not fit together (yet) is left alone
            until the files change again.
        """
        if self._renew is not None and time.monotonic() - self._asked >= _ASK_AGAIN:
            self._asked = time.monotonic()
            with suppress(FedserError):  # the certificate that is served is still good for weeks
                self._renew()
        mark = self._stamp()
        if mark == self._mark:
            return False
        self._mark = mark
        try:
            self._newest = server_context(self.certificates)
        except ConfigError:
            return False
        return True

    def _hand_over(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = self._newest

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self.certificates.chain, self.certificates.key))


def own_certificates(chain: Path, key: Path, ca: Path, hosts: Iterable[str]) -> Certificates:
    """Certificates that the provider brings along, tried out as a site will see them.

    Args:
        chain: PEM file: the server's certificate, then intermediate ones.
        key: PEM file with its private key, without a passphrase.
        ca: PEM file with the one root certificate that sites are to pin.
        hosts: under which the sites reach the node; the certificate has to be good for each.

    Raises:
        ConfigError: a file cannot be read, the key is open to every user, the root is not a single certificate,
            or a site that pins it would refuse the node.
    """
    found = Certificates(chain, key, single_certificate(ca))
    if _permissions(key) & 0o007:
        raise ConfigError(f"The key {key} is open to every user.", f"Run: chmod o= '{key}'")
    server = server_context(found)
    for host in hosts:
        reason = refusal(server, found.ca, host)
        if reason is not None:
            raise ConfigError(
                f"A site that pins {ca} would refuse {chain} at {host}: {reason}.",
                "Give the chain from the server's certificate to this root, and a certificate for this name.",
            )
    return found


def single_certificate(path: Path) -> str:
    """The one certificate of a PEM file, without whatever stands around it.

    Raises:
        ConfigError: the file cannot be read or holds none, or several.
    """
    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(_LIMIT))
    except (OSError, ValueError):
        found = []
    if len(found) != 1:
        raise ConfigError(f"{path} does not hold one PEM certificate.", "Name the file of the root certificate.")
    return pem(found[0])


def refusal(server: ssl.SSLContext, ca: str, host: str) -> str | None:
    """Why a site that pins ``ca`` would refuse this server under ``host``; None where it would not.

    A whole handshake in memory, with the code that does it on the network.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    site = client_context([ca]).wrap_bio(down, up, server_hostname=host)
    node = server.wrap_bio(up, down, server_side=True)
    try:
        for _ in range(8):
            done = [_advance(side) for side in (site, node)]
            if all(done):
                return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return error.reason or str(error)
    return "the handshake does not end"


def _advance(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True


def _load(context: ssl.SSLContext, certificates: Certificates) -> None:
    try:
        # An empty password: a key with a passphrase is an error instead of a question on the terminal.
        context.load_cert_chain(certificates.chain, certificates.key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"The certificate {certificates.chain} and the key {certificates.key} cannot be used: {reason}.",
            "Give a PEM certificate chain and its PEM private key without a passphrase.",
        ) from None


def _permissions(path: Path) -> int:
    try:
        return path.stat().st_mode
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"The key {path} cannot be read: {reason}.", "Name the private key's file.") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino
