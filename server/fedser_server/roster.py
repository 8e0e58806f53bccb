"""The roster, ``sites.json``: who was invited, who enrolled with which keys, who was revoked or left.

Every change is read, made and written under the state folder's lock, and the file is replaced in one step:
commands, enrolments and a running node may all change it at any time. A token is kept as its SHA-256 only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedser import files
from fedser.config import Settings, validate
from fedser.errors import ConfigError, EnrolmentError, KeyFileError, SignatureError, StateError
from fedser.federation.enrolment import EnrolRequest, check_proofs
from fedser.federation.schema import Digest, Name
from fedser.federation.withdrawal import LeaveRequest
from fedser.federation.withdrawal import check as check_leave
from fedser_server.folder import RESTORE, exclusive, read_private

Time = Annotated[int, Field(ge=0, lt=2**53)]
Reason = Literal["token", "revoked", "expired", "malformed", "proof", "key"]
_OUT = ("revoked", "left")
_NOBODY = hashlib.sha256(b"").hexdigest()
_HINTS = {
    "token": "Check that the invitation is this provider's and the newest for this site.",
    "revoked": "Ask the provider why this site was revoked.",
    "expired": "Ask the provider for a new invitation.",
    "malformed": "Use the version of fedser that the provider names.",
    "proof": "Join again; if it goes on, make the site's keys anew with another --state folder.",
    "key": "Join with the state folder that used this invitation first, or ask for a new invitation.",
}


class RefusedError(EnrolmentError):
    """An enrolment that is refused, and the code why."""

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(message, _HINTS[code])
        self.code: Reason = code


class SiteEntry(Settings):
    """One site.

    Attributes:
        name: unique in the study.
        status: invited → enrolled → revoked, or left by its own word.
        token_hash: SHA-256 of the token's text; the token itself is nowhere but in the invitation.
        invited, expires, enrolled, revoked, left: Unix times in seconds, None where it has not happened.
        node_key: canonical PEM of the EC P-384 public key that it enrolled with.
        reply_key: its Ed25519 public key, in hexadecimal.
    """

    name: Name
    status: Literal["invited", "enrolled", "revoked", "left"]
    token_hash: Annotated[Digest, Field(repr=False)]
    invited: Time
    expires: Time
    node_key: str | None = None
    reply_key: Digest | None = None
    enrolled: Time | None = None
    revoked: Time | None = None
    left: Time | None = None

    @model_validator(mode="after")
    def _whole(self) -> SiteEntry:
        if self.status == "enrolled" and (self.node_key is None or self.reply_key is None):
            raise ValueError("an enrolled site has keys")
        return self


class _File(Settings):
    """``sites.json``; ``retired`` are keys of revoked sites, which never enrol again."""

    fedser_sites: Literal[1] = 1
    sites: tuple[SiteEntry, ...] = ()
    retired: tuple[str, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, SiteEntry]:
        """The sites by name; one and the same object for one state of the file."""
        return {site.name: site for site in self.sites}

    @model_validator(mode="after")
    def _unique(self) -> _File:
        if len({site.name for site in self.sites}) != len(self.sites):
            raise ValueError("a site stands here twice")
        return self


class Roster:
    """The sites of one provider state folder.

    Args:
        folder: the state folder; ``sites.json`` is made by :meth:`create`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self.path = folder, folder / "sites.json"
        self._seen: tuple[tuple[int, int, int], _File] | None = None

    def create(self) -> None:
        """Write an empty roster where there is none. The caller holds the folder's lock."""
        if not self.path.exists():
            self._write(_File())

    def entries(self) -> dict[str, SiteEntry]:
        """All sites by name; reads the file again only when it has changed.

        Raises:
            StateError: the file is missing, damaged or open to other users.
        """
        return self._read().by_name

    def invite(self, name: str, lifetime: float, now: float | None = None) -> str:
        """Put a new site on the roster and return its token, which is stored nowhere.

        Args:
            name: not taken by a site that is enrolled, or invited with a token that is still good.
            lifetime: seconds for which the token can be used.
            now: Unix time; the clock's without one.

        Raises:
            EnrolmentError: the name is taken, or is no name.
            StateError: the roster is damaged.
        """
        now = time.time() if now is None else now
        token = secrets.token_urlsafe(16)
        values = {"name": name, "status": "invited", "token_hash": _hash(token)}
        try:
            entry = validate(SiteEntry, {**values, "invited": int(now), "expires": int(now + lifetime)})
        except ConfigError:
            raise EnrolmentError(
                f"{name!r:.80} is not a name for a site.",
                "Use up to 64 letters, digits, dots, hyphens and underscores, beginning with a letter or digit.",
            ) from None
        with self._editing() as before:
            old = next((site for site in before.sites if site.name == name), None)
            if old is not None and (old.status == "enrolled" or (old.status == "invited" and now <= old.expires)):
                raise EnrolmentError(
                    f"The name {name} is taken: that site is {old.status}.",
                    f"Choose another name, or first: fedser-server revoke {name}.",
                )
            self._write(_replaced(before, entry))
        return token

    def revoke(self, name: str, now: float | None = None) -> SiteEntry:
        """Shut a site out: its token and its keys are good for nothing any more.

        Raises:
            EnrolmentError: there is no such site.
            StateError: the roster is damaged.
        """
        with self._editing() as before:
            old = next((site for site in before.sites if site.name == name), None)
            if old is None:
                raise EnrolmentError(f"There is no site {name!r:.80}.", "fedser-server sites lists them.")
            if old.status in _OUT:
                return old
            moment = int(time.time() if now is None else now)
            return self._shut_out(before, old.model_copy(update={"status": "revoked", "revoked": moment}))

    def leave(self, asked: LeaveRequest, now: float | None = None) -> bool:
        """Shut an enrolled site out by its own word; whether it was still in.

        Raises:
            RefusedError: the word is not that of the key which this site enrolled with; the roster is as it was.
            StateError: the roster is damaged.
        """
        with self._editing() as before:
            old = next((site for site in before.sites if site.name == asked.site), None)
            if old is None or old.reply_key != asked.reply_key:
                raise RefusedError("proof", "No site of this name enrolled with this key.")
            try:
                check_leave(asked)
            except SignatureError:
                raise RefusedError("proof", "The request does not prove that the site holds its key.") from None
            if old.status in _OUT:
                return False
            moment = int(time.time() if now is None else now)
            self._shut_out(before, old.model_copy(update={"status": "left", "left": moment}))
            return True

    def _shut_out(self, before: _File, entry: SiteEntry) -> SiteEntry:
        """Write an entry whose keys never enrol again."""
        retired = [key for key in (entry.node_key, entry.reply_key) if key]
        self._write(_replaced(before, entry).model_copy(update={"retired": (*before.retired, *retired)}))
        return entry

    def enrol(self, asked: EnrolRequest, now: float | None = None) -> SiteEntry:
        """Exchange a token for a place among the enrolled, bound to the first keys presented.

        The same keys may try again, as often as they like.

        Raises:
            RefusedError: with its code; the roster is as it was.
            StateError: the roster is damaged.
        """
        now = time.time() if now is None else now
        with self._editing() as before:
            old = _admitted(before, asked, now)
            node_key = _proven(asked)
            if old.status == "enrolled":
                if (old.node_key, old.reply_key) != (node_key, asked.reply_key):
                    raise RefusedError("key", "This invitation was used with other keys.")
                return old
            _check_free(before, node_key, asked.reply_key)
            keys = {"node_key": node_key, "reply_key": asked.reply_key}
            entry = old.model_copy(update={**keys, "status": "enrolled", "enrolled": int(now)})
            self._write(_replaced(before, entry))
            return entry

    @contextmanager
    def _editing(self) -> Iterator[_File]:
        with exclusive(self._folder):
            yield self._read()

    def _read(self) -> _File:
        try:
            about = self.path.stat()
        except OSError:
            raise StateError(f"The roster {self.path} is missing.", RESTORE) from None
        mark = (about.st_mtime_ns, about.st_size, about.st_ino)
        if self._seen is None or self._seen[0] != mark:
            self._seen = mark, _parsed(read_private(self.path), self.path)
        return self._seen[1]

    def _write(self, content: _File) -> None:
        text = json.dumps(content.model_dump(), indent=1)
        files.write_text(self.path, text + "\n", mode=0o600)
        self._seen = None


def _parsed(data: bytes, path: Path) -> _File:
    try:
        return validate(_File, json.loads(data), f"The roster {path}")
    except (ValueError, RecursionError):
        raise StateError(f"The roster {path} is damaged: it is not JSON.", RESTORE) from None
    except ConfigError as error:
        raise StateError(f"The roster is damaged. {error}", RESTORE) from None


def _replaced(content: _File, entry: SiteEntry) -> _File:
    """The roster with one entry exchanged, or put in at the end."""
    sites = {site.name: site for site in content.sites} | {entry.name: entry}
    return content.model_copy(update={"sites": tuple(sites.values())})


def _admitted(content: _File, asked: EnrolRequest, now: float) -> SiteEntry:
    """The entry whose token was presented; what is said without the right token tells nothing."""
    entry = next((site for site in content.sites if site.name == asked.site), None)
    right = hmac.compare_digest(_hash(asked.token), entry.token_hash if entry else _NOBODY)
    if entry is None or not right:
        raise RefusedError("token", "The invitation's token is not good here.")
    if entry.status in _OUT:
        raise RefusedError("revoked", "This site was revoked, or has left.")
    if entry.status == "invited" and now > entry.expires:
        raise RefusedError("expired", "The invitation has expired.")
    return entry


def _proven(asked: EnrolRequest) -> str:
    """The canonical node key, once both private keys are proven."""
    try:
        return check_proofs(asked)
    except KeyFileError as error:
        raise RefusedError("malformed", str(error)) from None
    except SignatureError:
        raise RefusedError("proof", "The request does not prove that the site holds both of its keys.") from None


def _check_free(content: _File, node_key: str, reply_key: str) -> None:
    """A key stands for one site, once; sites that were revoked keep theirs for ever."""
    taken = {*content.retired, *(key for site in content.sites for key in (site.node_key, site.reply_key) if key)}
    if node_key in taken or reply_key in taken:
        raise RefusedError("key", "One of the keys belongs to another site, or to one that was revoked.")


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8")).hexdigest()
