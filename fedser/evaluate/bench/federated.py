"""``fedser bench --federated``: simulated federations over pairs, partitions and seeds, as rows of the same table.

Each job is one seed of one simulation (:mod:`fedser.evaluate.contenders`), whose settings are rows with the same
local work. ``seconds`` is that of the whole seed, which trains one source model for all of its settings.
"""

from __future__ import annotations

import io
import time
from collections.abc import Collection, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedser.audio.dataset import SpeechData
from fedser.console import progress, say
from fedser.errors import QuorumError, TooLittleDataError
from fedser.evaluate import pool
from fedser.evaluate import world as worlds
from fedser.evaluate.bench.cells import peak_mb
from fedser.evaluate.bench.corpora import read
from fedser.evaluate.bench.federated_settings import FederatedBenchSettings, check, simulation
from fedser.evaluate.bench.federated_summary import summarise
from fedser.evaluate.bench.pairs import Pair, shared
from fedser.evaluate.bench.run import remember
from fedser.evaluate.bench.scores import by_speaker, scores
from fedser.evaluate.bench.settings import BenchSettings, with_weights
from fedser.evaluate.bench.store import Key, Row, Store
from fedser.evaluate.contenders import run_seed
from fedser.evaluate.world import World, labels_of
from fedser.files import output_folder, write_text

FIXED = ("kappa", "sites", "options", "federation", "policy", "model", "train", "schedule")
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Job:
    """One seed of one simulation.

    Attributes:
        pair: of corpora.
        features: kind of features.
        normalisation: rule.
        partition: by name.
        method: of the sites.
        seed: of everything.
        settings: those that are not done yet.
    """

    pair: Pair
    features: str
    normalisation: str
    partition: str
    method: str
    seed: int
    settings: tuple[str, ...] = ()

    def key(self, setting: str) -> Key:
        """What names a row of the results."""
        return Key(
            source=self.pair.source,
            target=self.pair.target,
            method=self.method,
            setting=setting,
            features=self.features,
            normalisation=self.normalisation,
            protocol="transductive",
            target_set="all",
            partition=self.partition,
            seed=str(self.seed),
        )


def run(
    settings: FederatedBenchSettings, out: Path, *, jobs: int, device: torch.device, command: str
) -> dict[str, Any]:
    """Run all cells that ``out`` lacks and write the tables; returns the summary.

    Raises:
        ConfigError: a pair, partition, method or setting is not known.
        OutputError: ``out`` cannot be written or holds results of other settings.
    """
    begin = time.perf_counter()
    settings = settings.model_copy(update={"model": with_weights(settings.model)})
    pairs = check(settings)
    output_folder(out)
    shape = BenchSettings.model_validate(
        settings.model_dump(include={"corpora", "readers", "speaker_from", "model"}) | {"methods": ("source",)}
    )
    names = sorted({name for pair in pairs for name in (*pair.sources, pair.target)})
    # Features come into the cache here, so that the processes below only recall them.
    data = {name: read(shape, name, kind, device) for kind in reversed(settings.features) for name in names}
    remember(settings, out, FIXED, data, command)
    store = Store(out)
    todo, left_out = plan(settings, pairs, data, store.rows.keys())
    for note in left_out:
        say(f"left out: {note}")
    with progress("federations", len(todo)) as step:
        for rows, refusal in pool.results(compute, todo, start, settings, jobs):
            store.add(rows)
            if refusal is not None:
                say(f"left out: {refusal}")
                left_out.append(refusal)
            step()
    if not store.rows:
        raise QuorumError(f"No federation took place: {left_out[-1]}" if left_out else "There was nothing to compute.")
    summary = summarise(list(store.rows.values()), store.counts, resamples=settings.resamples, left_out=left_out)
    write_text(out / "summary.md", summary.markdown)
    return {"results": str(out / "results.csv"), "summary": str(out / "summary.md"), "uar": summary.uar} | {
        "seconds": round(time.perf_counter() - begin, 1),
        "computed": len(todo),
        "left_out": left_out,
        "peak_mb": peak_mb(),
    }


def plan(
    settings: FederatedBenchSettings, pairs: list[Pair], data: Mapping[str, SpeechData], done: Collection[Key]
) -> tuple[list[Job], list[str]]:
    """The jobs with a setting that is not done yet, and what cannot be computed, in words.

    Raises:
        TooLittleDataError: a pair that the user wrote down shares fewer than two emotions.
    """
    emotions = {name: part.emotions for name, part in data.items()}
    jobs: list[Job] = []
    notes: dict[str, None] = {}
    for pair in pairs:
        try:
            shared(emotions, pair)
        except TooLittleDataError as error:
            if pair.explicit:
                raise
            notes[f"{pair.source} → {pair.target}: {error}"] = None
            continue
        for partition in settings.partition:
            if partition.startswith("speaker") and None in data[pair.target].speakers:
                notes[f"{pair.target}, {partition}: the speakers are not known"] = None
                continue
            jobs += [
                Job(pair, features, rule, partition, method, seed)
                for features in settings.features
                for rule in settings.normalisation
                for method in settings.methods
                for seed in settings.seeds
            ]
    left = {job: tuple(name for name in settings.setting if job.key(name) not in done) for job in jobs}
    # All pairs and partitions of a seed, then the next seed: what is there after a while is a whole table.
    order = sorted((job for job in jobs if left[job]), key=lambda job: settings.seeds.index(job.seed))
    return [replace(job, settings=left[job]) for job in order], list(notes)


_shared: list[FederatedBenchSettings] = []  # filled once in each process
_worlds: dict[tuple[str, str, str], World] = {}  # by source, target with partition, and features


def start(settings: FederatedBenchSettings) -> None:
    """Prepare this process."""
    _shared[:] = [settings]
    _worlds.clear()


def compute(job: Job) -> tuple[list[Row], str | None]:
    """The rows of one seed, each with its ``counts`` by speaker; where no site took part none, and why."""
    settings = _shared[0].model_copy(update={"setting": job.settings})
    own = simulation(settings, job.pair, job.features, job.normalisation, job.partition, job.method, job.seed)
    place = (job.pair.source, f"{job.pair.target} {job.partition}", job.features)
    if place not in _worlds:
        with redirect_stderr(io.StringIO()):  # the first process has told what there is to tell about recordings
            _worlds[place] = worlds.build(own, CPU)
    world, begin = _worlds[place], time.perf_counter()
    try:
        result = run_seed(own, world, job.seed, CPU)
    except QuorumError as error:
        return [], f"{own.name}, {job.method}, seed {job.seed}: {error} {error.hint}"
    spent = round(time.perf_counter() - begin, 3)
    labels = labels_of(world)
    rows = [
        job.key(setting)._asdict()
        | {"encoder": settings.model.encoder, "classes": "|".join(world.classes), "seconds": spent}
        | {"peak_mb": peak_mb(), "chosen_by_guard": ""}
        | {"counts": by_speaker(result.probabilities[setting], labels, world.target.speakers)}
        | scores(result.probabilities[setting], labels)
        for setting in job.settings
    ]
    return rows, None
