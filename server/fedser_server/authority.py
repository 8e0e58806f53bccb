"""The provider's own certificate authority, in the state folder's ``tls/``.

- ``authority.pem``: the authority's key, its certificate, and the cross certificates that lead from the
  authorities before it, the newest first. One file, so that key and certificate can never disagree.
- ``ca.pem``: the certificate alone, for whoever wants to compare it.
- ``server.pem``: the server's key, its certificate, and the cross certificates: what the node serves.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedser import files
from fedser.errors import StateError
from fedser_server.certificates import (
    RENEWALS,
    Authority,
    cross_certificate,
    key_pem,
    names,
    new_authority,
    new_server,
    pem,
)
from fedser_server.folder import RESTORE, make_private, read_private

RENEW_BEFORE = timedelta(days=30)


class AuthorityFolder:
    """``tls/`` of a state folder. Its caller holds the folder's lock for everything that writes.

    Args:
        folder: the state folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tls"
        self._authority = self._folder / "authority.pem"
        self.ca = self._folder / "ca.pem"
        self.server = self._folder / "server.pem"

    def create(self) -> None:
        """Make the authority where there is none.

        Raises:
            OutputError: the place cannot be written.
        """
        make_private(self._folder)
        if not self._authority.exists():
            self._write_authority(new_authority(), [])

    def certificate(self) -> str:
        """PEM of the authority's certificate.

        Raises:
            StateError: it is missing or damaged.
        """
        return pem(self._read()[0].certificate)

    def prepare(self) -> Authority:
        """The authority that may follow this one; :meth:`install` makes it so."""
        return new_authority()

    def install(self, new: Authority) -> int:
        """Put a new authority in the old one's place, vouched for by it.

        Returns:
            How many authorities, from the oldest on, no longer lead to the new one.
        """
        old, crosses = self._read()
        chain = [cross_certificate(new, old), *crosses]
        self._write_authority(new, chain[:RENEWALS])
        return max(0, len(chain) - RENEWALS)

    def ensure_server(self, hosts: Iterable[str], *, anew: bool = False, now: datetime | None = None) -> bool:
        """Issue the server's certificate where it is missing, ends soon, lacks a host or is another authority's.

        Args:
            hosts: names and addresses under which sites reach the node.
            anew: issue it in any case.
            now: the time; the clock's without one.

        Returns:
            Whether a new one was issued.

        Raises:
            StateError: the authority is damaged, at its end, or by the clock not yet begun.
        """
        now = now or datetime.now(UTC)
        authority, crosses = self._read()
        if authority.certificate.not_valid_after_utc <= now:
            raise StateError("The certificate authority has expired.", "Make a new one: fedser-server renew ca.")
        if authority.certificate.not_valid_before_utc > now:
            raise StateError("The certificate authority is younger than the clock says.", "Set the clock right.")
        if not anew and self._good(authority, set(hosts), now):
            return False
        certificate, key = new_server(authority, hosts, now)
        text = key_pem(key) + pem(certificate) + "".join(pem(cross) for cross in crosses)
        files.write_text(self.server, text, mode=0o600)
        return True

    def _good(self, authority: Authority, hosts: set[str], now: datetime) -> bool:
        if not self.server.exists():
            return False
        try:
            served = x509.load_pem_x509_certificates(read_private(self.server))[0]
            served.verify_directly_issued_by(authority.certificate)
        except Exception:  # whatever is wrong with it, a new one is right
            return False
        end = min(now + RENEW_BEFORE, authority.certificate.not_valid_after_utc)
        in_time = served.not_valid_before_utc <= now and served.not_valid_after_utc >= end
        return in_time and {host.lower() for host in hosts} <= names(served)

    def _write_authority(self, authority: Authority, crosses: list[x509.Certificate]) -> None:
        text = key_pem(authority.key) + pem(authority.certificate) + "".join(pem(cross) for cross in crosses)
        files.write_text(self._authority, text, mode=0o600)
        files.write_text(self.ca, pem(authority.certificate))

    def _read(self) -> tuple[Authority, list[x509.Certificate]]:
        data = read_private(self._authority)
        try:
            key = load_pem_private_key(data, password=None)
            certificate, *crosses = x509.load_pem_x509_certificates(data)
        except (ValueError, TypeError):
            raise StateError(f"{self._authority} is damaged.", RESTORE) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise StateError(f"{self._authority} holds a key that is not its certificate's.", RESTORE)
        return Authority(certificate, key), crosses
