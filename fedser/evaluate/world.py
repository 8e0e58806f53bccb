"""The world of a simulation: the source model, and sites with their data.

Classes: a source that is trained in the run learns the emotions that source and target share. A bundle keeps
its own; ``classes`` masks those that the sites do not have. Target utterances of other emotions are left out of
everything by default, as published protocols do; ``unknown_emotions: adapt`` gives them to the sites to adapt on
and still does not score them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fedser import bundle as bundles
from fedser.adapt import Schedule
from fedser.adapt.site import class_mask
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.errors import ConfigError, TooLittleDataError
from fedser.evaluate.partition import SiteIndex, partition
from fedser.evaluate.simulation_settings import SimulationSettings
from fedser.evaluate.source import SourceModel, train_source
from fedser.federation.data import local_data
from fedser.federation.stages import LocalData


@dataclass(frozen=True)
class World:
    """What all seeds share.

    Attributes:
        classes: the model's, in the order of its logits.
        source: labelled corpora; empty with a bundle.
        target: all utterances at the sites.
        corpora: the corpus of each.
        sites: who has which.
        left_out: utterances by emotion that are not at the sites.
    """

    classes: tuple[str, ...]
    source: Mapping[str, SpeechData]
    target: SpeechData
    corpora: tuple[str, ...]
    sites: tuple[SiteIndex, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class SiteWorld:
    """One simulated site: its local data and its normaliser, fitted on nothing else."""

    name: str
    index: tuple[int, ...]
    data: LocalData
    normaliser: SiteNormaliser


def build(settings: SimulationSettings, device: torch.device) -> World:
    """Load the corpora and spread the target over sites.

    Raises:
        TooLittleDataError: source and target share fewer than two emotions.
        FedserError: recordings, labels or settings do not fit.
    """
    features, known = _features_and_classes(settings)
    source = _load(settings.source.corpora, settings.source.readers, features, device)
    parts = _load(settings.target.corpora, settings.target.readers, features, device, settings.target.speaker_from)
    target = dataset.join(list(parts.values())) if len(parts) > 1 else next(iter(parts.values()))
    corpora = [name for name, part in parts.items() for _ in range(len(part))]
    if source:
        known = tuple(sorted({e for part in source.values() for e in part.emotions if e} & set(target.emotions)))
    if len(known) < 2:
        raise TooLittleDataError(f"Source and target share {len(known)} emotions.", "Choose other corpora.")
    scored = [emotion in known for emotion in target.emotions]
    kept = list(range(len(scored))) if settings.unknown_emotions == "adapt" else _true(scored)
    outside = [target.emotions[row] or "none" for row in range(len(target)) if row not in set(kept)]
    target = target.subset(kept)
    corpora = [corpora[row] for row in kept]
    return World(
        classes=known,
        source={name: part.subset(_true([e in known for e in part.emotions])) for name, part in source.items()},
        target=target,
        corpora=tuple(corpora),
        sites=partition(target.utterances, corpora, settings.partition),
        left_out={emotion: outside.count(emotion) for emotion in sorted(set(outside))},
    )


def source_model(settings: SimulationSettings, world: World, seed: int, device: torch.device) -> SourceModel:
    """Train the source model of one seed, or read the bundle.

    Raises:
        FedserError: training data or the bundle do not fit.
    """
    own = settings.source
    if not world.source:
        bundle = bundles.read(own.bundle, signer=own.signer)
        return SourceModel(bundle.classifier().to(device), bundle.linear(), bundle.header.temperature)
    rule = settings.normalisation or NormalisationSettings()
    parts, speakers = [], list[str | None]()
    for name, data in world.source.items():
        parts.append(SiteNormaliser.fit(data.raw, data.speakers, rule).transform(data.raw, data.speakers))
        speakers += [None if speaker is None else f"{name}/{speaker}" for speaker in data.speakers]
    x = torch.cat(parts)
    y = torch.cat([data.labels(world.classes) for data in world.source.values()])
    return train_source(x, y, speakers, world.classes, own.model, own.train, seed=seed, device=device)


def build_sites(settings: SimulationSettings, world: World, source: SourceModel) -> tuple[SiteWorld, ...]:
    """Give each site its data, normalised by its own statistics alone."""
    mask = class_mask(source.model.classes, settings.classes) if settings.classes else None
    rule = settings.normalisation or _bundle_rule(settings, world)
    unit = settings.policy.privacy.unit
    published = _published(settings, world, rule) if unit in ("speaker", "utterance") else None
    sites = []
    for site in world.sites:
        own = world.target.subset(site.index)
        data = local_data(own, source.model, source.linear, rule, mask, unit=unit, published=published)
        sites.append(SiteWorld(site.name, site.index, *data))
    return tuple(sites)


def local_steps(schedule: Schedule, sites: Sequence[SiteWorld]) -> int:
    """K: the schedule's steps, or its epochs over a site of mean size."""
    return schedule.total(round(sum(len(site.index) for site in sites) / len(sites)))


def labels_of(world: World) -> Tensor:
    """Class numbers of the target utterances, int64 [N]; −1 for those that are not scored."""
    return world.target.labels(world.classes)


def _features_and_classes(settings: SimulationSettings) -> tuple[FeatureSettings, tuple[str, ...]]:
    own = settings.source
    if own.corpora and own.bundle:
        raise ConfigError("source names both corpora and a bundle.", "Keep one of them.")
    if own.corpora:
        if settings.classes is not None:
            raise ConfigError(
                "'classes' masks a bundle's head, and the source is trained here.",
                "Leave it out: the source learns the shared emotions only.",
            )
        return own.features, ()
    header = bundles.read(own.bundle, signer=own.signer).header
    return header.features, header.classes


def _bundle_rule(settings: SimulationSettings, world: World) -> NormalisationSettings:
    if world.source:
        return NormalisationSettings()
    return bundles.read(settings.source.bundle, signer=settings.source.signer).header.normalisation


def _published(settings: SimulationSettings, world: World, rule: NormalisationSettings) -> SiteNormaliser:
    """The statistics that a bundle publishes, or would publish, of its source."""
    if not world.source:
        return bundles.read(settings.source.bundle, signer=settings.source.signer).normaliser()
    everything = dataset.join(list(world.source.values()))
    return SiteNormaliser.fit(everything.raw, everything.speakers, rule)


def _load(
    corpora: Mapping[str, Path],
    readers: Mapping[str, str],
    features: FeatureSettings,
    device: torch.device,
    speaker_from: str | None = None,
) -> dict[str, SpeechData]:
    return {
        name: replace(
            dataset.load(
                folder,
                features,
                name=name,
                corpus=readers.get(name),
                speaker_from=speaker_from,
                need_labels=True,
                device=device,
            ),
            name=name,
        )
        for name, folder in corpora.items()
    }


def _true(flags: Sequence[bool]) -> list[int]:
    return [row for row, flag in enumerate(flags) if flag]
