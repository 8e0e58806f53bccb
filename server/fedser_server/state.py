"""The provider's state folder: the study, its keys and certificates, its sites, its chain of renewals."""

from __future__ import annotations

import re
import socket
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.errors import StateError
from fedser_server import keeping, tls
from fedser_server import study as studies
from fedser_server.authority import AuthorityFolder
from fedser_server.certificates import pem
from fedser_server.folder import exclusive, holder, make_private, running
from fedser_server.roster import Roster

DEFAULT_ADDRESS = "localhost:9443"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class State:
    """An opened state folder. Another process may change it at any time: properties read it anew.

    Attributes:
        folder: where it lies.
        roster: the sites.
        order_key: signs orders; the one that was good when the folder was opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roster = Roster(folder)
        self.order_key: SigningKey = keys.load(keeping.order_key_path(folder))
        self._authority = AuthorityFolder(folder)

    @classmethod
    def open(cls, folder: Path, *, study: str | None = None, create: bool = True) -> State:
        """Open a state folder; an empty or missing one is made: order key, authority, server certificate.

        Args:
            folder: owner-only.
            study: the study's name; one is made up for a new folder without it.
            create: whether a new one may be made.

        Raises:
            StateError: it is damaged, open to other users, another study's, or there is none to open.
            ConfigError: ``study`` is no name.
            OutputError: it cannot be written.
        """
        if not create and not (folder / studies.FILE).exists():
            raise StateError(f"{folder} is no provider's state folder.", "Name it with --state.")
        make_private(folder)
        with exclusive(folder):
            if not (folder / studies.FILE).exists():
                keeping.create(folder, study)
            keeping.finish(folder)
        state = cls(folder)
        if study is not None and state.study != study:
            raise StateError(
                f"The state folder {folder} belongs to the study {state.study}, not to {study}.",
                "Name another folder with --state, or leave the study's name out.",
            )
        state.roster.entries()
        state.certificates()
        return state

    def lock(self) -> AbstractContextManager[None]:
        """Hold the folder as the one running node.

        Raises:
            StateError: another process does; the message names its id.
        """
        return running(self.folder)

    @property
    def running(self) -> int | None:
        """The process that runs a node on this folder."""
        return holder(self.folder)

    @property
    def file(self) -> studies.Study:
        """What ``study.json`` holds.

        Raises:
            StateError: it is missing or damaged.
        """
        return studies.read(self.folder)

    @property
    def study(self) -> str:
        """The study's name."""
        return self.file.study

    @property
    def address(self) -> str:
        """``host:port`` that sites are invited to."""
        return self.file.address or DEFAULT_ADDRESS

    @property
    def ca(self) -> str:
        """PEM of the authority that new invitations pin."""
        return self.file.own_ca or self._authority.certificate()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names and addresses that the server's certificate has to be good for."""
        own = socket.gethostname().lower()
        known = [own] if re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", own) else []
        return tuple(sorted({*_LOOPBACK, *known, *self.file.hosts}))

    @property
    def trust(self) -> list[str]:
        """The chain of renewals, as JSON lines.

        Raises:
            StateError: it is damaged.
        """
        return keeping.chain(self.folder)

    def remember(self, *, address: str | None = None, bundle_key: str | None = None) -> None:
        """Keep an address or a bundle's key that invitations name.

        Raises:
            ConfigError: the address has no form HOST:PORT.
        """
        with exclusive(self.folder):
            old = self.file
            changes = old.invited_to(address) if address is not None else {}
            self._change(old, changes | (old.signed_by(bundle_key) if bundle_key is not None else {}))

    def certificates(self) -> tls.Certificates:
        """The node's own certificate, issued anew first where that is due.

        Raises:
            StateError: the authority is damaged or has expired.
        """
        with exclusive(self.folder):
            self._authority.ensure_server(self.hosts)
            return tls.Certificates(self._authority.server, self._authority.server, self._authority.certificate())

    def renew_certificate(self) -> None:
        """Issue the server's certificate anew, with a new key."""
        with exclusive(self.folder):
            self._authority.ensure_server(self.hosts, anew=True)

    def renew_ca(self) -> int:
        """Make a new authority, vouched for by the old one, and the server's certificate under it.

        The chain of trust is told first: an authority that is announced and lost in a crash harms nobody.

        Returns:
            How many of the oldest authorities no longer lead to it: sites that pinned one of those and were
            never back since need a new invitation.
        """
        with exclusive(self.folder):
            new = self._authority.prepare()
            if self.file.own_ca is None:
                self._announce(pem(new.certificate))
            lost = self._authority.install(new)
            self._authority.ensure_server(self.hosts, anew=True)
            return lost

    def use_ca(self, ca: str | None) -> bool:
        """Pin another authority from now on: that of the provider's own certificates, or (None) the folder's.

        Args:
            ca: PEM of one certificate.

        Returns:
            Whether that is a change; sites that come back learn it from the chain of trust, and accept the
            authority before it too.
        """
        with exclusive(self.folder):
            old = self.file
            if ca == old.own_ca:
                return False
            self._announce(ca or self._authority.certificate())
            self._change(old, {"own_ca": ca})
            return True

    def renew_order_key(self) -> str:
        """Make a new key for orders, signed by the old one, and return its public half.

        Raises:
            StateError: a node runs: it holds the old key.
        """
        with running(self.folder), exclusive(self.folder):
            keeping.renew_order_key(self.folder, self.ca)
            self.order_key = keys.load(keeping.order_key_path(self.folder))
            return self.order_key.public_hex

    def _announce(self, ca: str) -> None:
        key = keys.load(keeping.order_key_path(self.folder))
        keeping.announce(self.folder, self.trust, order_key=key.public_hex, ca=ca)

    def _change(self, old: studies.Study, changes: dict[str, Any]) -> None:
        new = old.changed(changes)
        if new != old:
            studies.write(self.folder, new)
