"""UAR against ε for the three privacy units, on RAVDESS and on 500 speakers of the demo's synthesiser.

::

    python benchmarks/privacy/utility.py synthesise configs/privacy/speakers.yaml --out SPEECH
    python benchmarks/privacy/utility.py speakers --source SPEECH/source --target SPEECH/calls --seeds 3
    python benchmarks/privacy/utility.py ravdess --source EMODB --target RAVDESS --seeds 3

One site holds all speakers, but for the site unit, for which they are spread over sites. Settings of private steps are
in :data:`STUDIES`; those of the speaker and utterance units were chosen by the figures of the configuration's
``development`` corpus, whose speakers and recording place are others; no label of a target served for anything but the
score. ``gain kept`` is the share of what ordinary adaptation (ECAN over ``--epochs``, the site's own normalisation and
statistics) gains over the published model under that normalisation.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from synthetic import World, synthesise
from torch import Tensor

from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.method import Gradient
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator, one_thread
from fedser.config import load
from fedser.evaluate import metrics
from fedser.evaluate.source import SourceModel, train_source
from fedser.federation.settle import settle
from fedser.models import EmotionClassifier, ModelSettings
from fedser.privacy import site_unit
from fedser.privacy.accountant import noise_for
from fedser.privacy.group_features import GroupUnit, identities, normaliser_for
from fedser.privacy.group_steps import GroupSettings, private_steps, trained_names
from fedser.train import TrainSettings

EPSILONS = (1.0, 2.0, 4.0, 8.0, None)
DELTA = 1e-5
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Private:
    """Private steps under one unit."""

    settings: GroupSettings
    schedule: Schedule
    steps: int


@dataclass(frozen=True)
class Sites:
    """Rounds of the site unit: ``speakers`` a site, ``steps`` local ones a round, updates cut to ``clip``."""

    speakers: int
    rounds: int = 5
    steps: int = 10
    clip: float = 0.5
    schedule: Schedule = field(default_factory=lambda: Schedule(learning_rate=1e-2))


_SPEAKER = Schedule(learning_rate=0.1, weight_decay=0.0)
_UTTERANCE = Schedule(learning_rate=0.03, weight_decay=0.0)
STUDIES: dict[str, dict[str, Private | Sites]] = {
    "speakers": {
        "speaker": Private(GroupSettings(rate=0.25, groups=500, size=20), _SPEAKER, 40),
        "utterance": Private(GroupSettings(rate=0.5, groups=600, size=16, together=True), _UTTERANCE, 20),
        "site": Sites(speakers=10),
    },
    "ravdess": {
        "speaker": Private(GroupSettings(rate=0.25, groups=24, size=44), _SPEAKER, 40),
        "utterance": Private(GroupSettings(rate=0.5, groups=60, size=16, together=True), _UTTERANCE, 20),
        "site": Sites(speakers=2),
    },
}


@dataclass(frozen=True)
class Case:
    """A published model, and a target at one site; its labels serve the score alone."""

    source: SourceModel
    published: SiteNormaliser
    target: SpeechData
    labels: Tensor


def main() -> int:
    """Print the table of one study as Markdown, or synthesise its corpora."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("synthesise", *STUDIES))
    parser.add_argument("config", nargs="?", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--units", default="speaker,utterance,site")
    parser.add_argument("--epochs", type=int, default=5, help="of ordinary adaptation")
    given = parser.parse_args()
    one_thread()
    if given.study == "synthesise":
        synthesise(load(World, given.config), given.out, ("source", "target", "development"))
        return 0
    found: dict[str, list[float]] = {}
    for seed in range(given.seeds):
        case = prepare(given.source, given.target, seed)
        for name, value in rows_of(given.study, case, seed, given.units.split(","), given.epochs):
            found.setdefault(name, []).append(value)
            sys.stderr.write(f"seed {seed}: {name} {value:.1f}\n")
            sys.stderr.flush()
    sys.stdout.write(table(found))
    return 0


def table(found: dict[str, list[float]]) -> str:
    """Rows of UAR in percent, mean ± standard deviation over seeds, with the share of the gain that is kept."""
    low, high = (statistics.fmean(found[name]) for name in ("source", "ordinary adaptation"))
    lines = ["| setting | UAR | gain kept |", "|---|---|---|"]
    for name, values in found.items():
        mean, spread = statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
        kept = f"{100 * (mean - low) / (high - low):.0f} %" if high - low > 0.5 else "no gain to keep"
        lines.append(f"| {name} | {mean:.1f} ± {spread:.1f} | {kept} |")
    return "\n".join(lines) + "\n"


def rows_of(study: str, case: Case, seed: int, units: Sequence[str], epochs: int) -> Iterator[tuple[str, float]]:
    """Names and UAR in percent of every setting; noise and coins are new in every run."""
    raw, speakers = case.target.raw, case.target.speakers
    x = SiteNormaliser.fit(raw, speakers, NormalisationSettings()).transform(raw, speakers)
    yield "source", score(case.source.model, x, case)
    for unit in units:
        how = STUDIES[study][unit]
        if isinstance(how, Sites):
            yield from site_rows(case, how, seed)
        else:
            yield from group_rows(case, "speaker" if unit == "speaker" else "utterance", how)
    schedule = Schedule(epochs=epochs, learning_rate=1e-2)  # ECAN's own rate
    yield "ordinary adaptation", score(adapt(case.source.model, x, make("ecan"), schedule, seed=seed).model, x, case)


def prepare(source: Path, target: Path, seed: int) -> Case:
    """Train what the provider publishes, and keep its statistics."""
    data, site = (dataset.load(folder, FeatureSettings(), need_labels=True) for folder in (source, target))
    classes = tuple(sorted({e for e in data.emotions if e} & {e for e in site.emotions if e}))
    data, site = (part.subset(part.labels(classes) >= 0) for part in (data, site))
    published = SiteNormaliser.fit(data.raw, data.speakers, NormalisationSettings())
    x = published.transform(data.raw, data.speakers)
    trained = train_source(
        *(x, data.labels(classes), data.speakers, classes, ModelSettings(), TrainSettings()), seed=seed, device=CPU
    )
    return Case(trained, published, site, site.labels(classes))


def score(model: torch.nn.Module, x: Tensor, case: Case) -> float:
    """UAR in percent."""
    return 100 * metrics.uar(case.labels, probabilities(model.eval(), x).argmax(dim=1))


def group_rows(case: Case, unit: GroupUnit, how: Private) -> Iterator[tuple[str, float]]:
    """One site, private steps, and the published statistics throughout."""
    raw, speakers = case.target.raw, case.target.speakers
    x = normaliser_for(unit, raw, speakers, case.published).transform(raw, speakers)
    yield f"{unit}: source, normalised for it", score(case.source.model, x, case)
    for epsilon in EPSILONS:
        own = how.settings
        noise = 0.0 if epsilon is None else noise_for(epsilon, DELTA, own.rate, how.steps)
        settings = GroupSettings(own.clip, noise, own.rate, own.groups, own.size, own.together, own.trained)
        units = identities(case.target.utterances, unit)
        after = private_steps(*(case.source.model, x, units, make("ecan"), how.schedule, settings), steps=how.steps)
        told = "∞" if epsilon is None else f"{epsilon:g}"
        yield f"{unit}: ε = {told} (noise {noise:.2f})", score(after, x, case)


def site_rows(case: Case, how: Sites, seed: int) -> Iterator[tuple[str, float]]:
    """Sites of a few speakers each, which share what private steps share; local noise, or one noise on the sum."""
    for epsilon in EPSILONS:
        told = "∞" if epsilon is None else f"{epsilon:g}"
        noise = 0.0 if epsilon is None else noise_for(epsilon, DELTA, 1.0, how.rounds, discrete=True)
        for form in ("local", "central") if noise else ("none",):
            yield f"site, {form} noise: ε = {told} (noise {noise:.2f})", federate(case, how, noise, form, seed)


def federate(case: Case, how: Sites, noise: float, form: str, seed: int) -> float:
    """Rounds of mean updates; each site is scored with the joint weights and its own statistics."""
    names = sorted({name or "" for name in case.target.speakers})
    order = torch.randperm(len(names), generator=generator("utility", "sites", seed)).tolist()
    place = {names[speaker]: number // how.speakers for number, speaker in enumerate(order)}
    rows = [[] for _ in range(-(-len(names) // how.speakers))]  # type: list[list[int]]
    for row, speaker in enumerate(case.target.speakers):
        rows[place[speaker or ""]].append(row)
    parts = [case.target.subset(own) for own in rows]
    xs = [SiteNormaliser.fit(p.raw, p.speakers, NormalisationSettings()).transform(p.raw, p.speakers) for p in parts]
    ecan = make("ecan", {"freeze_head": False})
    assert isinstance(ecan, Gradient)
    joint = copy.deepcopy(case.source.model)
    shared = trained_names(joint, ecan, "affine_head", joint.adaptable())
    for turn in range(how.rounds):
        moved = [local_change(joint, x, ecan, shared, how, seed, turn) for x in xs]
        mean = aggregate(moved, how.clip, noise, form)
        put(joint, shared, mean)
    answers = torch.empty(len(case.labels), dtype=torch.int64)
    for own, x in zip(rows, xs, strict=True):
        local = copy.deepcopy(joint)
        settle(local, x)
        answers[own] = probabilities(local.eval(), x).argmax(dim=1)
    return 100 * metrics.uar(case.labels, answers)


def local_change(
    joint: EmotionClassifier, x: Tensor, method: Gradient, shared: Sequence[str], how: Sites, seed: int, turn: int
) -> Tensor:
    """What one site's training changed, flat [P]."""
    frozen = set(joint.adaptable()) - set(shared)
    after = adapt(
        *(joint, x, method, how.schedule),
        seed=seed,
        frozen=frozen,
        start=turn * how.steps,
        total=how.rounds * how.steps,
        steps=how.steps,
    ).model
    before, later = dict(joint.named_parameters()), dict(after.named_parameters())
    return torch.cat([(later[name] - before[name]).detach().flatten() for name in shared])


def aggregate(moved: Sequence[Tensor], clip: float, noise: float, form: str) -> Tensor:
    """The mean of clipped updates: noise in each of them, one noise on their sum, or none."""
    if form == "local":
        return torch.stack([site_unit.released(flat, clip, noise) for flat in moved]).mean(dim=0)
    grid = site_unit.grid_of(clip, len(moved[0]))
    summed = np.sum([site_unit.on_grid(flat, clip, grid) for flat in moved], axis=0)
    if form == "central":
        summed = site_unit.noised(summed, noise * site_unit.sensitivity(clip, grid, len(summed)) / grid)
    return torch.from_numpy(summed * grid / len(moved)).float()


def put(model: EmotionClassifier, names: Sequence[str], change: Tensor) -> None:
    """Move some parameters."""
    with torch.no_grad():
        for name, part in zip(names, torch.split(change, [model.get_parameter(n).numel() for n in names]), strict=True):
            parameter = model.get_parameter(name)
            parameter += part.view(parameter.shape)


if __name__ == "__main__":
    sys.exit(main())
