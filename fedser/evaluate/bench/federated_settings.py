"""What ``fedser bench --federated`` compares: the settings of a federation, over pairs and partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from fedser.adapt import METHODS, Schedule
from fedser.config import Names, Seeds, Settings
from fedser.errors import ConfigError
from fedser.evaluate import contenders
from fedser.evaluate.bench.pairs import Pair, resolve
from fedser.evaluate.bench.settings import FEATURES, RULES, named
from fedser.evaluate.partition import PartitionSettings
from fedser.evaluate.simulation_settings import CONTENDERS, RoundSettings, SimulationSettings
from fedser.federation.policy import Policy
from fedser.models import ModelSettings, features_for
from fedser.train import TrainSettings

_PARTITION = re.compile(r"(speaker)([1-9]\d*)|(dirichlet)(\d+(?:\.\d+)?)")


class FederatedBenchSettings(Settings):
    """Federations over several pairs of corpora and several ways to spread the target over sites.

    Attributes:
        corpora: corpus name → folder.
        readers: corpus name → name of its reader, where the folder does not tell.
        speaker_from: target corpus → rule that tells the speaker from the path, where the reader does not.
        pairs: ``source:target`` names, with several sources as ``a+b:target``; ``all``; ``leave_one_out``.
        features: kinds of features; ``pretrained`` and ``waveform`` for a pretrained ``model.encoder``.
        normalisation: rules, the same for source and sites.
        partition: ``speakerN`` (N whole speakers a site) or ``dirichletA`` (each emotion spread over ``sites`` sites
            by Dirichlet(A)).
        sites: number of sites of a ``dirichlet`` partition.
        setting: what is compared: ``source``, ``bn``, ``alone``, ``federated``, ``personal``, ``pooled``,
            ``newcomer``; see ``contenders`` of a simulation. All of them make the same number of local steps.
        methods: what the sites adapt by.
        seeds: a list of seeds, or their number.
        kappa: pseudo-utterances of the site's statistics, see ``normalisation.kappa`` of a simulation.
        resamples: of the bootstrap in the summary.
        options: settings by method, over the methods' own defaults.
        federation: how sites join.
        policy: of every site.
        model: what the source classifier looks like.
        train: how it is trained.
        schedule: of the local loop; the method's own without it.
    """

    corpora: dict[str, Path]
    readers: dict[str, str] = Field(default_factory=dict)
    speaker_from: dict[str, str] = Field(default_factory=dict)
    pairs: Names = ("all",)
    features: Names = ("functionals",)
    normalisation: Names = ("auto",)
    partition: Names = ("speaker1", "speaker2", "dirichlet0.3")
    sites: int = Field(5, ge=2)
    setting: Names = ("source", "alone", "federated", "personal", "pooled", "newcomer")
    methods: Names = ("ecan",)
    seeds: Seeds = (0, 1, 2, 3, 4)
    kappa: float = Field(10.0, gt=0)
    resamples: int = Field(2000, ge=100, le=100_000)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    federation: RoundSettings = RoundSettings()
    policy: Policy = Policy()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    schedule: Schedule | None = None


def partition_of(name: str, sites: int) -> PartitionSettings:
    """The partition that a name stands for.

    Raises:
        ConfigError: it stands for none.
    """
    match = _PARTITION.fullmatch(name)
    if match is None or (match[4] is not None and float(match[4]) == 0):
        raise ConfigError(f"'{name}' is no partition.", "Write speaker1, speaker2, … or dirichlet0.3, dirichlet1, ….")
    if match[1]:
        return PartitionSettings(by="speaker", speakers=int(match[2]))
    return PartitionSettings(by="dirichlet", sites=sites, alpha=float(match[4]))


def simulation(
    settings: FederatedBenchSettings, pair: Pair, features: str, rule: str, partition: str, method: str, seed: int
) -> SimulationSettings:
    """One seed of one pair and partition as a simulation."""
    common = {"model": settings.model, "train": settings.train, "features": features_for(settings.model, features)}
    return SimulationSettings.model_validate(
        {
            "name": f"{pair.source} → {pair.target}, {partition}",
            "source": {
                "corpora": _some(settings.corpora, pair.sources),
                "readers": _some(settings.readers, pair.sources),
            }
            | common,
            "target": {
                "corpora": _some(settings.corpora, (pair.target,)),
                "readers": _some(settings.readers, (pair.target,)),
                "speaker_from": settings.speaker_from.get(pair.target),
            },
            "partition": partition_of(partition, settings.sites),
            "normalisation": {"rule": rule, "kappa": settings.kappa},
            "method": {"name": method, "options": settings.options.get(method, {})},
            "schedule": settings.schedule,
            "federation": settings.federation,
            "policy": settings.policy,
            "contenders": settings.setting,
            "seeds": [seed],
        }
    )


def check(settings: FederatedBenchSettings) -> list[Pair]:
    """Validate the names in the settings and resolve the pairs, before any work.

    Raises:
        ConfigError: naming what is not known, or an option that a method does not have.
    """
    named("method", settings.methods, tuple(METHODS))
    named("setting", settings.setting, CONTENDERS)
    named("normalisation", settings.normalisation, RULES)
    named("feature set of the benchmark", settings.features, FEATURES)
    pairs = resolve(settings.pairs, settings.corpora)
    for partition in settings.partition:
        partition_of(partition, settings.sites)
    for method in settings.methods:
        one = simulation(settings, pairs[0], settings.features[0], settings.normalisation[0], "speaker1", method, 0)
        contenders.check(one)
    return pairs


def _some(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}
