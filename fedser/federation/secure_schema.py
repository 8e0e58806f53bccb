"""The messages of a masked sum, beside the order and its answer: what each side says in five exchanges.

=========  =====================  =====================================================================================
exchange   provider → site        site → provider
=========  =====================  =====================================================================================
keys       :class:`KeysOrder`     :class:`MaskKeys`: two fresh public keys, signed by the site's long-term key
shares     :class:`Roster`        :class:`MaskShares`: for each peer, sealed, a share of the own seed and of the own key
train      ``Order``              :class:`MaskedUpdate`: the update under its masks
survivors  :class:`Survivors`     :class:`Consent`: a signature over the one list of sites whose update arrived
unmask     :class:`Unmask`        :class:`Revealed`: a share of each survivor's seed, and of each other's key
=========  =====================  =====================================================================================

Bonawitz et al. 2017, "Practical secure aggregation for privacy-preserving machine learning", figure 4, with its signed
keys and lists. The provider relays; what it may not read is sealed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.dataclasses import dataclass

from fedser.federation.schema import (
    MOST_MASKED,
    Attempt,
    Box,
    Digest,
    Expires,
    Modulus,
    Name,
    Names,
    Round,
    Signature,
    Terms,
)

_STRICT = ConfigDict(strict=True, extra="forbid")
Share = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{66}$")]
Shares = Annotated[tuple[Share, ...], Field(max_length=MOST_MASKED)]


@dataclass(frozen=True, config=_STRICT)
class KeysOrder:
    """Provider → site: a masked sum begins; make keys for it."""

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    terms: Terms
    expires: Expires


@dataclass(frozen=True, config=_STRICT)
class MaskKeys:
    """Site → provider, and through the roster to all: keys of this attempt and no other.

    Attributes:
        encryption: X25519 public key, in hexadecimal, for shares that peers seal for this site.
        agreement: X25519 public key from which this site and each peer have their common mask.
        commitment: of the seed of the site's own mask, so that what is recovered can be compared.
    """

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    terms: Terms
    encryption: Digest
    agreement: Digest
    commitment: Digest


@dataclass(frozen=True, config=_STRICT)
class Member:
    """One site of a roster: what it said of its keys, the long-term key that signed it, and the signature."""

    site: Name
    signer: Digest
    encryption: Digest
    agreement: Digest
    commitment: Digest
    signature: Signature


@dataclass(frozen=True, config=_STRICT)
class Roster:
    """Provider → site: all who made keys, sorted by name."""

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    terms: Terms
    members: Annotated[tuple[Member, ...], Field(min_length=2, max_length=MOST_MASKED)]
    expires: Expires


@dataclass(frozen=True, config=_STRICT)
class MaskShares:
    """Site → provider: a sealed box for each other member, in the roster's order."""

    protocol: Literal[1]
    roster: Digest
    boxes: Annotated[tuple[Box, ...], Field(min_length=1, max_length=MOST_MASKED)]


@dataclass(frozen=True, config=_STRICT)
class MaskedUpdate:
    """Site → provider: the update as integers modulo 2^modulus under masks, beside it as one flat tensor."""

    protocol: Literal[1]
    order_digest: Digest
    tensor_digest: Digest
    modulus: Modulus


@dataclass(frozen=True, config=_STRICT)
class Survivors:
    """Provider → site: the sites whose masked update arrived, in the roster's order.

    Attributes:
        task: digest of what the orders of all sites have in common.
    """

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    task: Digest
    survivors: Names
    expires: Expires


@dataclass(frozen=True, config=_STRICT)
class Consent:
    """Site → provider, and to all survivors: the one list that this site answers in this attempt."""

    protocol: Literal[1]
    site: Name
    task: Digest
    survivors: Digest


@dataclass(frozen=True, config=_STRICT)
class Unmask:
    """Provider → site: the survivors' signatures under the list; those of other lists do not count."""

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    task: Digest
    survivors: Digest
    consents: Annotated[tuple[tuple[Name, Signature], ...], Field(max_length=MOST_MASKED)]
    expires: Expires


@dataclass(frozen=True, config=_STRICT)
class Revealed:
    """Site → provider: what unmasks the sum, and nothing else.

    Attributes:
        seeds: this site's share of each survivor's seed, in the list's order.
        keys: its share of the agreement key of each sender that is no survivor, in the roster's order.
    """

    protocol: Literal[1]
    task: Digest
    survivors: Digest
    seeds: Shares
    keys: Shares


Asked = KeysOrder | Roster | Survivors | Unmask
Said = MaskKeys | MaskShares | MaskedUpdate | Consent | Revealed
