"""What a site's owner demands of everything that leaves: the privacy unit, the budget, and the masked sum."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from fedser.config import Settings

Unit = Literal["none", "site", "speaker", "utterance"]
Trained = Literal["all", "bottleneck", "affine", "head", "affine_head"]
Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
LARGEST_DELTA = 1e-5


class MaskingSettings(Settings):
    """The masked sum: the provider learns the sum of the sites' updates, never one of them.

    Attributes:
        required: whether updates may leave masked only.
        peers: SHA-256 of each peer's public signing key, by the site's name, exchanged outside the network. Without
            them the sum holds against a provider that follows the protocol, and against no other.
        honest: the smallest number of honest sites, this one among them, whose updates must be in every sum. A
            share's noise is the target's divided by this number, whatever count the provider names. In the central
            form an honest site is one whose policy has this one's clip and noise, or adds wider shares: agree on both.
        active: whether the sum must hold against a provider that departs from the protocol: it needs ``peers``, and
            more than two thirds of a round's sites to unmask; else more than half of them.
    """

    required: bool = False
    peers: dict[str, Fingerprint] = Field(default_factory=dict)
    honest: int = Field(default=2, ge=2, le=1000)
    active: bool = False

    @model_validator(mode="after")
    def _known_peers(self) -> MaskingSettings:
        if self.active and not self.peers:
            raise ValueError("active needs the fingerprints of all peers (peers): else the provider could invent sites")
        return self


class PrivacySettings(Settings):
    """Differential privacy of what leaves the site; none by default.

    Attributes:
        unit: what two neighbouring data sets differ in: the ``site``, one ``speaker`` or one ``utterance``; ``none``
            switches differential privacy off.
        form: of the site unit: ``local`` noise in each update, or a share of it under the mask of a ``central`` sum.
        epsilon: the budget of this site and unit, over all studies, runs and versions of the model.
        delta: at most 1e-5, and at most 0.1 divided by the number of units.
        units: how many units there are at most: sites of the study, or for the other two units the public number of
            ``groups``; None takes ``groups``.
        clip: L2 norm to which one unit's contribution is shortened.
        noise: standard deviation of the noise, in clips; None makes it of ``epsilon``, ``releases`` and ``rate``.
        releases: noised sums over which the budget is to last: updates of the site unit, steps of the others.
        groups: the public number of disjoint groups: each declared speaker is one, or a keyed hash puts utterances into
            them. With ``rate`` it is what a step's sum is divided by, however many were drawn.
        rate: chance of each speaker or utterance to be in a step (Poisson sampling).
        size: utterances of a group in a step; a smaller group gives each several times, under fresh noise.
        trained: parameters that private steps train, of those that travel: ``all``, the ``bottleneck``, the ``head``,
            the scales and shifts of the normalisation layers (``affine``), or ``affine_head``.
        ledger: the file of the budget, an absolute path; in the state folder when None. Two state folders of one site
            name the same.
        site: the owner's name of this site, under which the ledger stands; the name in the study when None. A site
            that is known by several names in several studies, and shares a ledger, needs one.
        masking: the masked sum.
    """

    unit: Unit = "none"
    form: Literal["local", "central"] = "local"
    epsilon: float = Field(default=8.0, gt=0, le=100)
    delta: float = Field(default=1e-5, gt=0, le=LARGEST_DELTA)
    units: int | None = Field(default=None, ge=1)
    clip: float = Field(default=1.0, gt=0, le=1000)
    noise: float | None = Field(default=None, ge=1e-9, le=1e4)
    releases: int = Field(default=20, ge=1, le=1_000_000)
    groups: int = Field(default=500, ge=1, le=1_000_000)
    rate: float = Field(default=0.1, gt=0, le=1)
    size: int = Field(default=20, ge=2, le=1024)
    trained: Trained = "affine_head"
    ledger: Path | None = None
    site: str | None = Field(default=None, min_length=1, max_length=64)
    masking: MaskingSettings = MaskingSettings()

    @model_validator(mode="after")
    def _delta_fits(self) -> PrivacySettings:
        units = self.units or (1 if self.unit == "site" else self.groups)
        if self.unit != "none" and self.delta > 0.1 / units:
            raise ValueError(f"delta must be at most {0.1 / units:g}, 0.1 divided by {units} units")
        if self.ledger is not None and not self.ledger.is_absolute():
            raise ValueError("ledger must be an absolute path: from elsewhere, another one would be another budget")
        if self.form == "central" and not self.masking.required:
            raise ValueError("the central form needs masking.required: true; a share of the noise protects nobody")
        if self.form == "central" and self.unit not in ("none", "site"):
            raise ValueError("the central form belongs to the site unit")
        return self

    @property
    def on(self) -> bool:
        """Whether anything is noised."""
        return self.unit != "none"
