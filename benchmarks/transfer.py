"""Source-available references beside their own source-only model and source-free methods, all ordered pairs.

    python benchmarks/transfer.py emodb=DIR emovo=DIR ravdess=DIR urdu=DIR --seeds 3 --jobs 2

Transductive, functionals, normalisation `auto`, classes that source and target share. Each (pair, seed) trains one
source-only model; every other column starts from it, or makes as many steps from the same first weights. Target labels
are read by the score alone. UAR in percent, mean ± standard deviation over seeds.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from fedser.adapt import METHODS, adapt, make, probabilities
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import one_thread
from fedser.config import assign
from fedser.console import progress
from fedser.evaluate.metrics import uar
from fedser.models import ModelSettings
from fedser.train import TrainSettings, fit_linear, train_model
from fedser.transfer import REFERENCES, transfer

CPU = torch.device("cpu")
Options = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Job:
    """One ordered pair and seed."""

    source: str
    target: str
    seed: int


def normalised(data: SpeechData) -> torch.Tensor:
    """A corpus' z-scores by its own statistics."""
    return SiteNormaliser.fit(data.raw, data.speakers, NormalisationSettings()).transform(data.raw, data.speakers)


def cells(
    data: Mapping[str, SpeechData], methods: Sequence[str], options: Options, job: Job
) -> dict[str, tuple[float, float]]:
    """UAR and seconds of each method."""
    one_thread()
    a, b = data[job.source], data[job.target]
    classes = sorted({str(e) for e in a.emotions} & {str(e) for e in b.emotions})
    a, b = (part.subset(part.labels(classes) >= 0) for part in (a, b))
    x, y, target_x = normalised(a), a.labels(classes), normalised(b)
    begin = time.process_time()
    trained = train_model(x, y, a.speakers, classes, ModelSettings(), TrainSettings(), job.seed, CPU)
    spent, linear = time.process_time() - begin, fit_linear(x, y, classes)
    found = {}
    for name in methods:
        begin = time.process_time()
        if name in REFERENCES:
            given = options.get(name, {})
            model: nn.Module = transfer(
                name, x, y, a.speakers, target_x, classes, options=given, seed=job.seed, trained=trained
            ).model
        else:
            method = make(name, options.get(name, {}))
            model = adapt(trained.model, target_x, method, seed=job.seed, linear=linear).model
        seconds = spent if name == "source" else time.process_time() - begin
        answers = probabilities(model, target_x).argmax(dim=1)
        found[name] = (100 * uar(b.labels(classes), answers), seconds)
    return found


def table(results: Mapping[Job, Mapping[str, tuple[float, float]]], methods: Sequence[str]) -> str:
    """Pairs by methods, the mean over pairs, and each method's seconds a model."""
    places = list(dict.fromkeys((job.source, job.target) for job in results))
    seeds = sorted({job.seed for job in results})
    rows = [["pair", *methods]]
    for source, target in places:
        values = {m: [results[Job(source, target, seed)][m][0] for seed in seeds] for m in methods}
        rows.append([f"{source} → {target}", *(shown(values[m]) for m in methods)])
    means = {
        m: [statistics.fmean(results[Job(*place, seed)][m][0] for place in places) for seed in seeds] for m in methods
    }
    rows.append(["**mean**", *(shown(means[m]) for m in methods)])
    seconds = {m: statistics.fmean(found[m][1] for found in results.values()) for m in methods}
    rows.append(["seconds a model", *(f"{seconds[m]:.1f}" for m in methods)])
    head, *body = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def shown(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    return f"{statistics.fmean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def main() -> None:
    """Compute the table and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", nargs="+", help="NAME=DIR, two or more")
    parser.add_argument("--methods", default="source,bn,shot,aad," + ",".join(REFERENCES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--option", action="append", default=[], help="method.key=value, such as didan.weight=1")
    asked = parser.parse_args()
    one_thread()
    methods = asked.methods.split(",")
    if unknown := set(methods) - set(METHODS) - set(REFERENCES):
        parser.error(f"unknown methods: {', '.join(sorted(unknown))}")
    options: dict[str, dict[str, object]] = {}
    for override in asked.option:
        assign(options, override)
    places = {name: Path(place) for name, _, place in (text.partition("=") for text in asked.corpora)}
    kind = FeatureSettings(kind="functionals")
    data = {name: dataset.load(place, kind, name=name, need_labels=True) for name, place in places.items()}
    jobs = [Job(a, b, seed) for a, b in itertools.permutations(data, 2) for seed in range(asked.seeds)]
    work = functools.partial(cells, data, methods, options)
    with ProcessPoolExecutor(asked.jobs) as pool, progress("pairs", len(jobs)) as step:
        results = {}
        for job, found in zip(jobs, pool.map(work, jobs), strict=True):
            results[job] = found
            step()
    print(table(results, methods))


if __name__ == "__main__":
    main()
