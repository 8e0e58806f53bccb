"""What a benchmark compares, on what, and how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from fedser.adapt import METHODS, Schedule, make
from fedser.audio.features import FeatureSettings
from fedser.config import Names, Seeds, Settings, validate
from fedser.errors import ConfigError
from fedser.evaluate.bench.contest import GUARD, SUPERVISED, guard_settings
from fedser.evaluate.bench.pairs import Pair, resolve
from fedser.evaluate.bench.target_sets import TARGET_SETS
from fedser.evaluate.protocols import PROTOCOLS
from fedser.models import ModelSettings
from fedser.models import resolve as pinned
from fedser.train import TrainSettings
from fedser.transfer import REFERENCES

RULES = ("auto", "corpus", "speaker", "shrunk")
FEATURES = ("functionals", "egemaps", "logmel", "pretrained", "waveform")


class BenchSettings(Settings):
    """What to compare, on what, and how.

    Attributes:
        corpora: corpus name → folder.
        readers: corpus name → name of its reader, where the folder does not tell.
        speaker_from: corpus name → rule that tells the speaker from the path, where the reader does not.
        pairs: ``source:target`` names, with several sources as ``a+b:target``; ``all`` ordered pairs of single
            corpora; ``leave_one_out`` (all other corpora against each).
        features: kinds of features; ``pretrained`` and ``waveform`` for a pretrained ``model.encoder``.
        normalisation: rules, the same for source and target.
        methods: names of methods; also ``guard`` (what the label-free guard picks), ``supervised`` (an oracle:
            logistic regression on the target's labels, leaving one speaker out) and the methods that see source and
            target together, ``dann``, ``coral``, ``didan`` and ``emodna``.
        protocol: ``transductive`` (adapt and test on all utterances), ``inductive`` (test on held-out speakers) or
            ``inductive_causal`` (the same, with statistics of the held-out speakers that grow as they speak).
        target_set: ``all`` utterances, or a harder set: ``dirichlet`` (at most 20 a speaker, with emotions in
            unequal shares), ``neutral70`` (70 % neutral), ``two_emotions`` (neutral and anger), ``unfiltered``
            (emotions that the source does not know stay in), ``telephone`` (through a telephone line and its
            codec), ``small`` (sites of ten utterances, each adapted by itself) or ``nonspeech`` (noises; only the
            guard's choice is told).
        seeds: a list of seeds, or their number.
        folds: speaker folds of the inductive protocols.
        kappa: pseudo-utterances of the site's statistics, see ``normalisation.kappa`` of a simulation.
        reference: the method whose differences to all others are tested in the summary.
        resamples: of the bootstrap.
        options: settings by method, over the methods' own defaults.
        model: what the source classifier looks like.
        train: how it is trained.
        schedule: of every method with gradient steps; each method's own without it.
    """

    corpora: dict[str, Path]
    readers: dict[str, str] = Field(default_factory=dict)
    speaker_from: dict[str, str] = Field(default_factory=dict)
    pairs: Names = ("all",)
    features: Names = ("functionals",)
    normalisation: Names = ("auto",)
    methods: Names = ("source", "ecan")
    protocol: Names = ("transductive", "inductive")
    target_set: Names = ("all",)
    seeds: Seeds = (0, 1, 2, 3, 4)
    folds: int = Field(5, ge=2)
    kappa: float = Field(10.0, gt=0)
    reference: str = "fedser"
    resamples: int = Field(2000, ge=100, le=100_000)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    schedule: Schedule | None = None


def check(settings: BenchSettings) -> list[Pair]:
    """Validate the names in the settings and resolve the pairs, before any work.

    Raises:
        ConfigError: naming what is not known, or an option that a method does not have.
    """
    known = (*METHODS, GUARD, SUPERVISED, *REFERENCES)
    named("method", settings.methods, known)
    named("method (under options)", tuple(settings.options), known)
    named("protocol", settings.protocol, PROTOCOLS)
    named("target set", settings.target_set, TARGET_SETS)
    named("normalisation", settings.normalisation, RULES)
    named("feature set of the benchmark", settings.features, FEATURES)
    if "nonspeech" in settings.target_set and GUARD not in settings.methods:
        raise ConfigError("The target set nonspeech asks what the guard chooses.", "Add guard to the methods.")
    for name, options in settings.options.items():
        if name in METHODS:
            make(name, options)
        elif name == GUARD:
            guard_settings(options)
        else:
            kind = REFERENCES[name].settings_type if name in REFERENCES else Settings  # the oracle has no settings
            validate(kind, options, f"the options of the method {name}")
    return resolve(settings.pairs, settings.corpora)


def with_weights(model: ModelSettings) -> ModelSettings:
    """A pretrained encoder's settings with its weights in the store and named by digest; others as they are.

    Raises:
        FedserError: the weights cannot be had.
    """
    return pinned(model, FeatureSettings())[0]


def named(label: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        ConfigError: naming it and what would do.
    """
    for name in names:
        if name not in known:
            raise ConfigError(f"'{name}' is no {label}.", f"Choose from: {', '.join(known)}.")
