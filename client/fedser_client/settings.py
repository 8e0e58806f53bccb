"""``site.json``: what a site remembers of its provider and of its own command line; ``run`` needs no options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedser.config import Settings
from fedser.federation.invitation import Address, Token
from fedser.federation.schema import PROTOCOL, Digest, Name


class SiteSettings(Settings):
    """One site's part in one study.

    Attributes:
        fedser_site: version of this format.
        protocol: version of the messages between the nodes.
        study, site: names, as in every order.
        address: ``host:port`` of the provider's node.
        ca: PEM of the certificate authority that the invitation pins.
        order_key: key of the orders that the invitation pins; renewals lead on from it.
        bundle_key: key that must have signed the bundle; None until the order key has vouched for one.
        token: one-time; None once the site is enrolled.
        expires: Unix time, in seconds, of the token.
        data: the recordings.
        classes: emotions that the site has; the bundle's when None.
        corpus, speaker_from: how the recordings are read.
        device: where the site computes.
        proxy: HTTP proxy; the environment's when None.
        policy: the site's policy, where it is not ``policy.yaml`` in the state folder.
        method: what adapts a bundle that is published without rounds.
        rounds: as the provider told last; None before it was asked.
        bundle_name, bundle_version: the newest bundle that was accepted.
        trusted_sequence, trusted_key, trusted_cas: where the provider's chain of renewals led last time.
        finished: the order to finish was answered.
        left: Unix time, in seconds, at which the site left the study; None while it takes part.
        signed_off: the provider knows it.
    """

    fedser_site: Literal[1] = 1
    protocol: Literal[1] = PROTOCOL
    study: Name
    site: Name
    address: Address
    ca: Annotated[str, Field(max_length=16_384)]
    order_key: Digest
    bundle_key: Digest | None = None
    token: Annotated[Token | None, Field(repr=False)] = None
    expires: int = 0
    data: Path
    classes: tuple[str, ...] | None = None
    corpus: str | None = None
    speaker_from: str | None = None
    device: str = "auto"
    proxy: str | None = None
    policy: Path | None = None
    method: str | None = None
    rounds: Annotated[int | None, Field(ge=0)] = None
    bundle_name: str | None = None
    bundle_version: int = 0
    trusted_sequence: Annotated[int, Field(ge=0)] = 0
    trusted_key: Digest | None = None
    trusted_cas: tuple[str, ...] = ()
    finished: bool = False
    left: Annotated[int | None, Field(ge=0)] = None
    signed_off: bool = False

    @property
    def authorities(self) -> tuple[str, ...]:
        """PEM of every certificate authority that the provider's certificate may lead to."""
        return self.trusted_cas or (self.ca,)

    @property
    def enrolled(self) -> bool:
        """Whether the token has been exchanged."""
        return self.token is None
