"""The site's recordings, prepared with exactly the steps of a simulation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from fedser.adapt.site import class_mask
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import SiteNormaliser
from fedser.audio.utterance import Utterance
from fedser.bundle import Bundle
from fedser.evaluate.local import allowed_classes
from fedser.federation.data import local_data
from fedser.federation.stages import LocalData
from fedser.privacy.group_features import DUPLICATES
from fedser.privacy.settings import Unit
from fedser_client.settings import SiteSettings


@dataclass(frozen=True)
class SiteData:
    """What the site has.

    Attributes:
        speech: utterances with their features, and what was set aside.
        local: what the site's stages work on.
        normaliser: the site's statistics.
        allowed: emotions that the site has; None means all of the bundle's.
    """

    speech: SpeechData
    local: LocalData
    normaliser: SiteNormaliser
    allowed: tuple[str, ...] | None


def prepare(
    bundle: Bundle,
    settings: SiteSettings,
    device: torch.device,
    without: Callable[[Utterance], bool] | None = None,
    unit: Unit = "none",
) -> SiteData:
    """Find the recordings, set unusable ones aside, compute or recall features, normalise.

    Args:
        bundle: verified; it names the features and the normalisation.
        settings: which recordings, how to read them, which emotions the site has.
        device: where features are computed and the model adapts.
        without: tells the utterances of speakers who have withdrawn.
        unit: the privacy unit of the site's policy.

    Raises:
        UsageError: an emotion that the bundle does not know.
        DataError: the recordings do not fit.
    """
    header = bundle.header
    allowed = allowed_classes(settings.classes, header.classes)
    speech = dataset.load(
        settings.data,
        header.features,
        corpus=settings.corpus,
        speaker_from=settings.speaker_from,
        device=device,
        without=without,
        duplicates=DUPLICATES[unit] if unit in ("speaker", "utterance") else "site",
    )
    mask = class_mask(header.classes, allowed) if allowed else None
    model = bundle.classifier().to(device)
    local, normaliser = local_data(
        speech, model, bundle.linear(), header.normalisation, mask, unit=unit, published=bundle.normaliser()
    )
    return SiteData(speech, local, normaliser, allowed)
