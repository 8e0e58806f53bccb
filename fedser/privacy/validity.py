"""Whether a private run would keep what it claims; one that would not is refused, with the nearest sound setting.

Nothing here is a warning. A fact that one side cannot know (a site does not see how the provider weighs) is left at
None by it and checked by the other; what leaves the site (counts, scalars) the site's own gate keeps back, whatever
was asked for. What masked sums cannot be combined with is refused with a study's settings, on the provider's side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fedser.errors import PrivacyError
from fedser.privacy.settings import PrivacySettings

Statistics = Literal["published", "unit", "site", "batch"]


@dataclass(frozen=True)
class Facts:
    """What a run would do; None where this side does not know it.

    Attributes:
        method: the method's name, and whether its loss can be stated inside a group (``groupwise``).
        coupled: whether a loss term joins utterances of a batch or a bank outside one group.
        peer: whether the shared linear peer would travel.
        student: whether the network that travels would learn from another one, which stays at the site.
        batch_norm: where normalisation layers take their statistics from: the ``published`` bundle, the privacy unit
            itself, the whole ``site``, or the ``batch``.
        features: the same, of the features' normalisation.
        sampling: how units come into a step.
        declared: whether speakers are declared, by the manifest or a rule.
        units: how many units there are; looked at before a site takes part at all.
        weighting: of the sites, by the provider.
    """

    method: str | None = None
    groupwise: bool | None = None
    coupled: bool | None = None
    peer: bool | None = None
    student: bool | None = None
    batch_norm: Statistics | None = None
    features: Statistics | None = None
    sampling: Literal["poisson", "shuffled", "all"] | None = None
    declared: bool | None = None
    units: int | None = None
    weighting: str | None = None


Finding = tuple[str, str] | None
Rule = Callable[[PrivacySettings, Facts], Finding]


def check(privacy: PrivacySettings, facts: Facts) -> None:
    """Refuse a run that would not be sound.

    Raises:
        PrivacyError: the first reason, and the nearest setting that is sound.
    """
    for rule in RULES:
        found = rule(privacy, facts)
        if found is not None:
            raise PrivacyError(*found)


def _inside(privacy: PrivacySettings) -> bool:
    return privacy.unit in ("speaker", "utterance")


def _method(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or facts.groupwise is not False:
        return None
    return (
        f"The method {facts.method} has no form in which one {privacy.unit}'s part is bounded.",
        "Use ecan or aad, or privacy.unit: site, which is sound for every method.",
    )


def _coupling(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or not facts.coupled:
        return None
    return (
        f"The loss joins utterances of several groups: clipping each part does not bound what one {privacy.unit} does.",
        "Keep neighbours, pseudo-labels and negatives inside one group, or use privacy.unit: site.",
    )


def _batch_norm(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or facts.batch_norm in (None, "published"):
        return None
    return (
        f"Batch normalisation with statistics of the {facts.batch_norm} joins all its utterances.",
        "Keep the bundle's published statistics, train the bundle with norm=group, or use privacy.unit: site.",
    )


def _features(privacy: PrivacySettings, facts: Facts) -> Finding:
    sound = ("published",) if privacy.unit == "utterance" else ("published", "unit")
    if not _inside(privacy) or facts.features is None or facts.features in sound:
        return None
    return (
        f"The features are normalised by statistics that more than one {privacy.unit} has a part in.",
        "Normalise by published statistics (or, for the speaker unit, by each speaker's own), or use "
        "privacy.unit: site.",
    )


def _sampling(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or facts.sampling in (None, "poisson"):
        return None
    return (
        "The units of a step are not drawn by independent coins of a public rate, so the accountant does not apply.",
        "Draw them by Poisson sampling with privacy.rate.",
    )


def _speakers(privacy: PrivacySettings, facts: Facts) -> Finding:
    if privacy.unit != "speaker" or facts.declared is not False:
        return None
    return (
        "Speakers are not declared, so nobody can say which utterances belong to one.",
        "Declare them (a manifest, or --speaker-from), or use privacy.unit: site.",
    )


def _delta(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not privacy.on or not facts.units or privacy.delta <= 0.1 / facts.units:
        return None
    return (
        f"A delta of {privacy.delta:g} is above 0.1 divided by the {facts.units} units that there are.",
        f"Set privacy.delta to {0.1 / facts.units:.3g} or less.",
    )


def _peer(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or not facts.peer:
        return None
    return (
        "The shared linear peer is fitted to all utterances of the site at once.",
        "Leave the peer out (peer: false), or use privacy.unit: site, where it is part of the clipped update.",
    )


def _student(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not _inside(privacy) or not facts.student:
        return None
    return (
        "The joint network would learn from the site's own one, which all of the site's utterances have made.",
        "Leave the student out (student.steps: 0), or use privacy.unit: site, where it is the clipped update.",
    )


def _weighting(privacy: PrivacySettings, facts: Facts) -> Finding:
    if not privacy.on or facts.weighting in (None, "uniform"):
        return None
    return (
        "Weights by the number of utterances depend on the data, and under differential privacy no count leaves.",
        "Use aggregation.weighting=uniform.",
    )


RULES: tuple[Rule, ...] = (
    _method,
    _coupling,
    _batch_norm,
    _features,
    _sampling,
    _speakers,
    _delta,
    _peer,
    _student,
    _weighting,
)
