"""What each part of the method ``fedser`` is worth: left out one at a time, over all ordered pairs of the corpora.

Transductive UAR, ``functionals`` and ``auto``; one source model a pair and seed serves all variants. Labels of the
target serve the score alone::

    python benchmarks/ablation.py emodb=DIR emovo=DIR ravdess=DIR urdu=DIR --seeds 3 --jobs 2
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.fedser import Fedser
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import one_thread
from fedser.evaluate import metrics
from fedser.evaluate.bench.pairs import Pair, shared
from fedser.evaluate.source import train_source
from fedser.models import ModelSettings
from fedser.train import TrainSettings

Job = tuple[dict[str, str], str, str, int]
ALONE = {"student_steps": 0}  # parts of the adapted network are told apart before the student smooths them
VARIANTS: dict[str, dict[str, float]] = {
    "fedser": {},
    "no student": ALONE,
    "no student, no linear view": {**ALONE, "view_weight": 0, "supervised_weight": 0},
    "no student, no distillation from the view": {**ALONE, "view_weight": 0},
    "no student, no classes by consensus": {**ALONE, "supervised_weight": 0},
    "no student, no neighbour contrast": {**ALONE, "neighbour_weight": 0},
    "no student, no anchor": {**ALONE, "anchor": 0},
    "no student, view from the first step": {**ALONE, "start": 0},
    "agreement and dispersion alone (AaD at the rate of fedser)": {
        **ALONE,
        **{"view_weight": 0, "supervised_weight": 0, "neighbour_weight": 0},
    },
}
SLOWER = "no student, half the rate (AaD's)"
CHOSEN = "chosen leaving the target's corpus out"


def main() -> int:
    """Print a table: mean UAR over the pairs, mean ± standard deviation over seeds, and the difference to all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", metavar="NAME=DIR")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    folders = dict(pair.split("=", 1) for pair in given.corpora)
    jobs = [(folders, *pair, seed) for seed in range(given.seeds) for pair in itertools.permutations(folders, 2)]
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn"), initializer=one_thread) as pool:
        found = list(pool.map(one, jobs))
    rows = {
        name: [
            statistics.fmean(scores[name] for job, scores in zip(jobs, found, strict=True) if job[3] == seed)
            for seed in range(given.seeds)
        ]
        for name in found[0]
    }
    lines = ["| variant | UAR | difference |", "|---|---|---|"]
    for name, values in rows.items():
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        apart = statistics.fmean(values) - statistics.fmean(rows["fedser"])
        lines.append(f"| {name} | {statistics.fmean(values):.1f}{spread} | {apart:+.1f} |")
    lines += chosen(list(zip(jobs, found, strict=True)), list(folders))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def chosen(scored: Sequence[tuple[Job, dict[str, float]]], corpora: Sequence[str]) -> list[str]:
    """What the variants are worth that are best on the pairs without the target's corpus, one for each target."""
    lines, worth = [], []
    for corpus in corpora:
        others = [scores for job, scores in scored if corpus not in job[1:3]]
        if not others:
            continue
        best = max(
            (name for name in others[0] if name != "source"), key=lambda n: statistics.fmean(s[n] for s in others)
        )
        mean = statistics.fmean(scores[best] for job, scores in scored if job[2] == corpus)
        lines.append(f"- target {corpus}: {best}, {mean:.1f}")
        worth.append(mean)
    return ["", f"{CHOSEN}: {statistics.fmean(worth):.1f}", *lines] if worth else []


def one(job: Job) -> dict[str, float]:
    """All variants on one pair with one seed: UAR in percent by name."""
    folders, source, target, seed = job
    data = {name: load(name, folders[name]) for name in (source, target)}
    classes = shared({name: part.emotions for name, part in data.items()}, Pair((source,), target))
    parts = {name: part.subset([i for i, e in enumerate(part.emotions) if e in classes]) for name, part in data.items()}
    x = {name: normalised(part) for name, part in parts.items()}
    labels = {name: part.labels(classes) for name, part in parts.items()}
    models = train_source(
        *(x[source], labels[source], parts[source].speakers, classes, ModelSettings(), TrainSettings()),
        seed=seed,
        device=torch.device("cpu"),
    )
    slower = Fedser.schedule.model_copy(update={"learning_rate": 1e-2})
    found = {"source": 100 * metrics.uar(labels[target], probabilities(models.model, x[target]).argmax(dim=1))}
    runs: list[tuple[str, dict[str, float], Schedule | None]] = [(n, o, None) for n, o in VARIANTS.items()]
    for name, options, schedule in [*runs, (SLOWER, ALONE, slower)]:
        method = make("fedser", options)
        model = adapt(models.model, x[target], method, schedule, seed=seed, linear=models.linear).model
        found[name] = 100 * metrics.uar(labels[target], probabilities(model, x[target]).argmax(dim=1))
    return found


def load(name: str, folder: str) -> SpeechData:
    """A labelled corpus' functionals."""
    settings = FeatureSettings.model_validate({"kind": "functionals"})
    return dataset.load(Path(folder), settings, name=name, need_labels=True)


def normalised(data: SpeechData) -> torch.Tensor:
    """By the rule ``auto``, inside the corpus."""
    rule = NormalisationSettings.model_validate({"rule": "auto"})
    return SiteNormaliser.fit(data.raw, data.speakers, rule).transform(data.raw, data.speakers)


if __name__ == "__main__":
    sys.exit(main())
