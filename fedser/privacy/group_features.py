"""Normalised features whose every row depends on its own privacy unit and on published statistics alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.audio.quality import Duplicates
from fedser.audio.utterance import Utterance
from fedser.errors import PrivacyError

GroupUnit = Literal["speaker", "utterance"]
#: Among which utterances duplicates are looked for: a recording must not decide whether another unit's is kept.
DUPLICATES: dict[GroupUnit, Duplicates] = {"speaker": "speaker", "utterance": "keep"}
PULL = 1.0  # pseudo-utterances of the published statistics in each speaker's: a constant, never fitted to a site


def identities(utterances: Sequence[Utterance], unit: GroupUnit) -> tuple[str | None, ...]:
    """The unit that each utterance belongs to: its declared speaker (None where unknown), or itself."""
    if unit == "speaker":
        return tuple(each.speaker for each in utterances)
    return tuple(f"{each.path}\0{each.start}\0{each.end}\0{each.channel}" for each in utterances)


def normaliser_for(
    unit: GroupUnit, raw: Tensor, speakers: Sequence[str | None], published: SiteNormaliser
) -> SiteNormaliser:
    """A normaliser without the site's statistics.

    Under the utterance unit everything is normalised by the published statistics. Under the speaker unit a speaker's
    own mean and variance, over that speaker's utterances, are pulled to the published ones by a constant κ; which
    rule and which κ never follow from the site's speech, as ``auto`` would have it.

    Args:
        unit: what neighbouring data sets differ in.
        raw: features [N, \\*shape].
        speakers: N ids; an unknown one gets the published statistics.
        published: the bundle's.

    Raises:
        PrivacyError: the bundle publishes no statistics though its features need some.
    """
    if published.site is None and published.rule != "utterance":
        raise PrivacyError(
            "The bundle publishes no statistics to normalise by.", "Use the site as the privacy unit (unit: site)."
        )
    clip = published.settings.clip
    if unit == "utterance" or published.site is None:
        rule = NormalisationSettings(rule="corpus", clip=clip)
        name = "corpus" if published.site is not None else published.rule
        return SiteNormaliser(rule, published.shape, name, 0.0, "Published statistics.", published.site, {})
    own = SiteNormaliser.fit(raw, speakers, NormalisationSettings(rule="shrunk", kappa=PULL, clip=clip))
    return SiteNormaliser(
        *(own.settings, own.shape, "shrunk", PULL),
        "Each speaker's statistics, pulled to the published ones.",
        published.site,
        own.speakers,
    )
