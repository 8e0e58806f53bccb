"""``study.json``: what the provider's state folder is for, and what its invitations say."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fedser import files
from fedser.config import Settings, validate
from fedser.errors import ConfigError, StateError
from fedser.federation.invitation import Address, split_address
from fedser.federation.schema import Digest, Name
from fedser_server.folder import RESTORE, read_private

FILE = "study.json"


class Study(Settings):
    """What the file holds.

    Attributes:
        study: the federation's name.
        created: Unix time in seconds.
        address: ``host:port`` of the last invitation.
        hosts: every host that sites were invited to.
        bundle_keys: every key that bundles may be signed with, the newest last.
        own_ca: PEM of the authority of the provider's own certificates, where it has some.
    """

    fedser_provider: Literal[1] = 1
    study: Name
    created: Annotated[int, Field(ge=0)]
    address: Address | None = None
    hosts: tuple[str, ...] = ()
    bundle_keys: tuple[Digest, ...] = ()
    own_ca: str | None = None

    def invited_to(self, address: str) -> dict[str, Any]:
        """The changes that a new address brings.

        Raises:
            ConfigError: it has no form HOST:PORT.
        """
        try:
            host = split_address(address)[0].lower()
        except ValueError as error:
            raise ConfigError(f"{address!r:.300} is no address: {error}.", "Give HOST:PORT with --address.") from None
        return {"address": address, "hosts": tuple(dict.fromkeys((*self.hosts, host)))}

    def signed_by(self, key: str) -> dict[str, Any]:
        """The changes that a bundle's key brings."""
        return {"bundle_keys": (*(known for known in self.bundle_keys if known != key), key)}

    def changed(self, changes: dict[str, Any]) -> Study:
        """The study with these changes."""
        return validate(Study, {**self.model_dump(), **changes}, "The study")


def new(name: str | None) -> Study:
    """A study that begins now; one without a name gets one by chance.

    Raises:
        ConfigError: it is no name.
    """
    return validate(Study, {"study": name or f"study-{secrets.token_hex(4)}", "created": int(time.time())}, "The study")


def read(folder: Path) -> Study:
    """The study of a state folder.

    Raises:
        StateError: the file is missing, damaged or open to other users.
    """
    path = folder / FILE
    try:
        return validate(Study, json.loads(read_private(path)), str(path))
    except (ValueError, RecursionError):
        raise StateError(f"{path} is damaged: it is not JSON.", RESTORE) from None
    except ConfigError as error:
        raise StateError(f"The study is damaged. {error}", RESTORE) from None


def write(folder: Path, study: Study) -> None:
    """Replace the study of a state folder; the caller holds the folder's lock.

    Raises:
        OutputError: the place cannot be written.
    """
    files.write_text(folder / FILE, json.dumps(study.model_dump(), indent=1) + "\n", mode=0o600)
