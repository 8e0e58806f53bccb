"""A site's recordings as the data that it adapts on; simulation and network call this same function."""

from __future__ import annotations

from torch import Tensor

from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, LinearClassifier


def local_data(
    speech: SpeechData,
    model: EmotionClassifier,
    linear: LinearClassifier | None,
    rule: NormalisationSettings,
    mask: Tensor | None,
) -> tuple[LocalData, SiteNormaliser]:
    """Normalise one site's features by the site's own statistics alone.

    Args:
        speech: the site's utterances; their labels, where there are any, are not looked at.
        model: the classifier as the signed bundle holds it, on the device that adapts it.
        linear: the bundle's logistic regression, where it has one.
        rule: how to normalise.
        mask: bool [C], true for the classes that the site has; None means all.

    Returns:
        What the site's stages work on, and the normaliser for later answers.
    """
    device = next(model.parameters()).device
    normaliser = SiteNormaliser.fit(speech.raw, speech.speakers, rule)
    x = normaliser.transform(speech.raw, speech.speakers).to(device)
    own = None if mask is None else mask.to(device)
    return LocalData(model, x, len(set(speech.speakers)), own, linear), normaliser
