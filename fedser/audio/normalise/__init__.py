"""Normalisation: features become z-scores by statistics that one site computes from its own speech alone.

Rules: ``corpus`` (the site's mean and standard deviation), ``speaker`` (each speaker's own), ``shrunk``
(each speaker's, pulled to the site's) and ``auto`` (``shrunk``, pulled as far as the site's own features ask
for; no labels).
"""

from __future__ import annotations

from fedser.audio.normalise.choice import Choice, between_speaker_share, choose
from fedser.audio.normalise.settings import NormalisationSettings
from fedser.audio.normalise.site import SiteNormaliser
from fedser.audio.normalise.statistics import Moments

__all__ = [
    "Choice",
    "Moments",
    "NormalisationSettings",
    "SiteNormaliser",
    "between_speaker_share",
    "choose",
]
