"""A site's recordings as the data that it adapts on; simulation and network call this same function."""

from __future__ import annotations

from torch import Tensor

from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.errors import PrivacyError
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, LinearClassifier
from fedser.privacy.group_features import GroupUnit, identities, normaliser_for
from fedser.privacy.settings import Unit
from fedser.privacy.validity import Statistics

_STATISTICS: dict[GroupUnit, Statistics] = {"speaker": "unit", "utterance": "published"}


def local_data(
    speech: SpeechData,
    model: EmotionClassifier,
    linear: LinearClassifier | None,
    rule: NormalisationSettings,
    mask: Tensor | None,
    *,
    unit: Unit = "none",
    published: SiteNormaliser | None = None,
) -> tuple[LocalData, SiteNormaliser]:
    """Normalise one site's features by the site's own statistics alone, or as a privacy unit inside it demands.

    Args:
        speech: the site's utterances; their labels, where there are any, are not looked at.
        model: the classifier as the signed bundle holds it, on the device that adapts it.
        linear: the bundle's logistic regression, where it has one.
        rule: how to normalise without such a unit.
        mask: bool [C], true for the classes that the site has; None means all.
        unit: the site's privacy unit; under ``speaker`` and ``utterance`` no row may depend on another unit.
        published: the bundle's statistics, for these two.

    Returns:
        What the site's stages work on, and the normaliser for later answers.

    Raises:
        PrivacyError: such a unit, and no published statistics.
    """
    device = next(model.parameters()).device
    own = None if mask is None else mask.to(device)
    count = len(set(speech.speakers))
    if unit in ("none", "site"):
        normaliser = SiteNormaliser.fit(speech.raw, speech.speakers, rule)
        x = normaliser.transform(speech.raw, speech.speakers).to(device)
        return LocalData(model, x, count, own, linear), normaliser
    if published is None:
        raise PrivacyError(
            f"The privacy unit {unit} needs published statistics to normalise by.", "Name the bundle, or unit: site."
        )
    group: GroupUnit = "speaker" if unit == "speaker" else "utterance"
    normaliser = normaliser_for(group, speech.raw, speech.speakers, published)
    x = normaliser.transform(speech.raw, speech.speakers).to(device)
    units, statistics = identities(speech.utterances, group), _STATISTICS[group]
    return LocalData(model, x, count, own, linear, units, statistics), normaliser
