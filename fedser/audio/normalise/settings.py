"""Settings of normalisation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedser.config import Settings


class NormalisationSettings(Settings):
    """How a site turns raw features into z-scores.

    Attributes:
        rule: ``corpus``, ``speaker``, ``shrunk``, or ``auto`` (see :mod:`fedser.audio.normalise.choice`).
        kappa: pseudo-utterances of the site's statistics that ``shrunk`` mixes into each speaker's;
            ``speaker`` uses it for speakers with too few utterances; ``auto`` finds its own, and starts
            from this one where it sees few speakers.
        clip: z-scores are cut at this many standard deviations.
    """

    rule: Literal["auto", "corpus", "speaker", "shrunk"] = "auto"
    kappa: float = Field(default=10.0, ge=0.0, le=1e6)
    clip: float = Field(default=5.0, gt=0.0, le=1e3)
