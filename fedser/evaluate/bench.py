"""The benchmark: every method × pair × normalisation × protocol × seed, one row of ``results.csv`` a cell.

A job trains one source model (source corpus, classes, features, normalisation, seed) and runs every method on
every target that shares those classes. Finished cells are not computed again: an interrupted run goes on when
it is started once more with the same folder. Jobs run in processes of one thread each.

Files in the output folder: ``results.csv``, ``confusions.jsonl`` (one matrix a cell), ``summary.md``,
``manifest.json`` (settings, versions, file hashes, git revision).
"""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, Field

from fedser import adapt as adaptation
from fedser.adapt import Schedule
from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import one_thread
from fedser.config import Settings
from fedser.console import progress
from fedser.errors import ConfigError, OutputError
from fedser.evaluate import metrics, protocols
from fedser.evaluate.source import SourceModel, train_source
from fedser.evaluate.summary import summarise
from fedser.files import output_folder, write_text
from fedser.models import ModelSettings
from fedser.provenance import run_manifest
from fedser.train import TrainSettings

COLUMNS = (
    *(
        "source",
        "target",
        "method",
        "setting",
        "encoder",
        "features",
        "normalisation",
        "protocol",
        "target_set",
        "seed",
    ),
    *("classes", "uar", "war", "macro_f1", "ece", "seconds", "peak_mb", "chosen_by_guard"),
)
KEY = ("source", "target", "method", "features", "normalisation", "protocol", "target_set", "seed")


def _listed(value: object) -> object:
    """Accept ``a,b,c`` from the command line beside a YAML list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _seeds(value: object) -> object:
    """Accept a number of seeds (0 … n-1) beside a list of seeds."""
    return list(range(value)) if isinstance(value, int) else _listed(value)


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1)]


class BenchSettings(Settings):
    """What to compare, on what, and how.

    Attributes:
        corpora: corpus name → folder.
        readers: corpus name → name of its reader, where the folder does not tell.
        pairs: ``source:target`` names, or ``all`` ordered pairs.
        features: kinds of features.
        normalisation: rules, the same for source and target.
        methods: names of methods.
        protocol: ``transductive`` (adapt and test on all utterances), ``inductive`` (test on held-out speakers) or
            ``inductive_causal`` (the same, with statistics of the held-out speakers that grow as they speak).
        target_set: ``all`` utterances, or a sample of them: ``dirichlet`` (at most 20 a speaker, with emotions in
            unequal shares), ``neutral70`` (70 % neutral) or ``two_emotions`` (neutral and anger).
        seeds: a list of seeds, or their number.
        folds: speaker folds of the inductive protocols.
        kappa: pseudo-utterances of the site's statistics, see ``normalisation.kappa`` of a simulation.
        options: settings by method, over the methods' own defaults.
        model: what the source classifier looks like.
        train: how it is trained.
        schedule: of every method with gradient steps; each method's own without it.
    """

    corpora: dict[str, Path]
    readers: dict[str, str] = Field(default_factory=dict)
    pairs: Names = ("all",)
    features: Names = ("functionals",)
    normalisation: Names = ("auto",)
    methods: Names = ("source", "ecan")
    protocol: Names = ("transductive", "inductive")
    target_set: Names = ("all",)
    seeds: Annotated[tuple[int, ...], BeforeValidator(_seeds), Field(min_length=1)] = (0, 1, 2, 3, 4)
    folds: int = Field(5, ge=2)
    kappa: float = Field(10.0, gt=0)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    schedule: Schedule | None = None


@dataclass(frozen=True)
class Job:
    """One source model and the targets that share its classes."""

    source: str
    classes: tuple[str, ...]
    targets: tuple[str, ...]
    features: str
    normalisation: str
    seed: int


Row = dict[str, Any]
_corpora: dict[tuple[str, str], SpeechData] = {}  # filled once in each worker process


def run(settings: BenchSettings, out: Path, *, jobs: int, device: torch.device, command: str) -> dict[str, Any]:
    """Run all cells that ``out`` lacks and write the tables; returns the summary.

    Raises:
        ConfigError: a pair, method, protocol or target set is not known.
        OutputError: ``out`` cannot be written or holds results of other settings.
    """
    begin = time.perf_counter()
    pairs = check(settings)
    output_folder(out)
    data = {
        (name, kind): dataset.load(
            settings.corpora[name],
            FeatureSettings.model_validate({"kind": kind}),
            name=name,
            corpus=settings.readers.get(name),
            need_labels=True,
            device=device,
        )
        for kind in settings.features
        for name in sorted({corpus for pair in pairs for corpus in pair})
    }
    _remember(settings, out, data, command)
    done = _finished(out / "results.csv")
    todo = [job for job in _jobs(settings, pairs, data) if _missing(settings, job, done)]
    with progress("benchmark", len(todo)) as step, (out / "results.csv").open("a", newline="") as table:
        writer = csv.DictWriter(table, COLUMNS)
        if table.tell() == 0:
            writer.writeheader()
        for rows in _computed(settings, todo, data, done, jobs):
            with (out / "confusions.jsonl").open("a") as matrices:
                for row in rows:
                    confusion = row.pop("confusion")
                    matrices.write(json.dumps({k: row[k] for k in (*KEY, "classes")} | {"matrix": confusion}) + "\n")
                    writer.writerow(row)
            table.flush()
            step()
    with (out / "results.csv").open(newline="") as table:
        summary = summarise(list(csv.DictReader(table)))
    write_text(out / "summary.md", summary.markdown)
    return {"results": str(out / "results.csv"), "summary": str(out / "summary.md"), "uar": summary.uar} | {
        "seconds": round(time.perf_counter() - begin, 1),
        "computed": len(todo),
        "peak_mb": _peak_mb(),
    }


def check(settings: BenchSettings) -> list[tuple[str, str]]:
    """Validate the names in the settings and resolve the pairs, before any work.

    Raises:
        ConfigError: naming what is not known.
    """
    for label, names, known in (
        ("method", settings.methods, tuple(adaptation.METHODS)),
        ("protocol", settings.protocol, protocols.PROTOCOLS),
        ("target set", settings.target_set, protocols.TARGET_SETS),
        ("normalisation", settings.normalisation, ("auto", "corpus", "speaker", "shrunk")),
    ):
        for name in names:
            if name not in known:
                raise ConfigError(f"'{name}' is no {label}.", f"Choose from: {', '.join(known)}.")
    for kind in settings.features:
        if kind not in ("functionals", "egemaps", "logmel"):
            raise ConfigError(f"'{kind}' is no feature set of the benchmark.", "Choose functionals, egemaps or logmel.")
    if settings.pairs == ("all",):
        return [(s, t) for s in settings.corpora for t in settings.corpora if s != t]
    pairs = []
    for text in settings.pairs:
        source, _, target = text.partition(":")
        for name in (source, target):
            if name not in settings.corpora:
                raise ConfigError(
                    f"The pair '{text}' names '{name}', which is not under corpora.",
                    f"Add corpora.{name or 'NAME'}=DIR, and write pairs as source:target.",
                )
        pairs.append((source, target))
    return pairs


def _jobs(
    settings: BenchSettings, pairs: Sequence[tuple[str, str]], data: Mapping[tuple[str, str], SpeechData]
) -> list[Job]:
    kind = settings.features[0]
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for source, target in pairs:
        classes = protocols.shared_classes(data[source, kind], data[target, kind])
        groups.setdefault((source, classes), []).append(target)
    return [
        Job(source, classes, tuple(targets), features, normalisation, seed)
        for seed in settings.seeds
        for features in settings.features
        for normalisation in settings.normalisation
        for (source, classes), targets in groups.items()
    ]


def _computed(
    settings: BenchSettings,
    todo: Sequence[Job],
    data: dict[tuple[str, str], SpeechData],
    done: frozenset[tuple[str, ...]],
    jobs: int,
) -> Iterable[list[Row]]:
    """Rows of each job as it ends."""
    if jobs <= 1:
        _start(data)
        for job in todo:
            yield compute(settings, job, done)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(data,)) as pool:
        waiting: list[Future[list[Row]]] = [pool.submit(compute, settings, job, done) for job in todo]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():  # leaving the block would wait for their jobs
                worker.terminate()
                worker.join()
            raise


def _start_worker(data: dict[tuple[str, str], SpeechData]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    _start(data)


def _start(data: dict[tuple[str, str], SpeechData]) -> None:
    one_thread()
    _corpora.clear()
    _corpora.update(data)


def compute(settings: BenchSettings, job: Job, done: frozenset[tuple[str, ...]] = frozenset()) -> list[Row]:
    """Train the job's source model and fill its cells."""
    source = _with_classes(_corpora[job.source, job.features], job.classes)
    normalisation = NormalisationSettings.model_validate({"rule": job.normalisation, "kappa": settings.kappa})
    models = _source(settings, source, job.classes, normalisation, job.seed)
    rows: list[Row] = []
    for name in job.targets:
        whole = _with_classes(_corpora[name, job.features], job.classes)
        for target_set in settings.target_set:
            target = protocols.target_subset(whole, target_set, job.seed)
            for method in settings.methods:
                cell = dict(
                    zip(
                        KEY,
                        (job.source, name, method, job.features, job.normalisation, "", target_set),
                        strict=False,
                    )
                ) | {"seed": job.seed}
                wanted = [p for p in settings.protocol if _key(cell | {"protocol": p}) not in done]
                rows.extend(_cells(settings, models, target, job, cell, normalisation, wanted))
    return rows


def _source(
    settings: BenchSettings,
    source: SpeechData,
    classes: tuple[str, ...],
    rule: NormalisationSettings,
    seed: int,
) -> SourceModel:
    """Train classifier and linear peer on one corpus, normalised inside itself."""
    x = SiteNormaliser.fit(source.raw, source.speakers, rule).transform(source.raw, source.speakers)
    y, cpu = source.labels(classes), torch.device("cpu")
    return train_source(x, y, source.speakers, classes, settings.model, settings.train, seed=seed, device=cpu)


def _cells(
    settings: BenchSettings,
    models: SourceModel,
    target: SpeechData,
    job: Job,
    cell: Row,
    normalisation: NormalisationSettings,
    wanted: Sequence[str],
) -> list[Row]:
    if not wanted:
        return []
    method = adaptation.make(cell["method"], settings.options.get(cell["method"], {}))
    labels = target.labels(job.classes)
    outcomes = protocols.evaluate(
        models, target, method, settings.schedule, normalisation, wanted, folds=settings.folds, seed=job.seed
    )
    return [
        cell
        | {"setting": "central", "encoder": settings.model.encoder, "protocol": protocol}
        | {"classes": "|".join(job.classes), "seconds": round(outcome.seconds, 3), "peak_mb": _peak_mb()}
        | {"chosen_by_guard": "", **_scores(outcome, labels)}
        for protocol, outcome in outcomes.items()
    ]


def _scores(outcome: protocols.Outcome, labels: torch.Tensor) -> Row:
    p, count = outcome.probabilities, outcome.probabilities.shape[1]
    guess = p.argmax(1)
    return {
        "uar": round(metrics.uar(labels, guess), 6),
        "war": round(metrics.war(labels, guess), 6),
        "macro_f1": round(metrics.macro_f1(labels, guess), 6),
        "ece": round(metrics.ece(p, labels), 6),
        "confusion": metrics.confusion(labels, guess, count).tolist(),
    }


def _with_classes(data: SpeechData, classes: Sequence[str]) -> SpeechData:
    return data.subset([i for i, emotion in enumerate(data.emotions) if emotion in classes])


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in KEY)


def _finished(table: Path) -> frozenset[tuple[str, ...]]:
    """Cells that stand in a results file; a line cut off by a crash is dropped from it."""
    if not table.exists():
        return frozenset()
    with table.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if None not in row.values() and None not in row]
    text = [",".join(COLUMNS)] + [",".join(row[name] for name in COLUMNS) for row in rows]
    write_text(table, "\n".join(text) + "\n")
    return frozenset(_key(row) for row in rows)


def _missing(settings: BenchSettings, job: Job, done: frozenset[tuple[str, ...]]) -> bool:
    return any(
        tuple(map(str, (job.source, target, method, job.features, job.normalisation, protocol, kind, job.seed)))
        not in done
        for target in job.targets
        for method in settings.methods
        for protocol in settings.protocol
        for kind in settings.target_set
    )


def _remember(settings: BenchSettings, out: Path, data: Mapping[tuple[str, str], SpeechData], command: str) -> None:
    """Write the manifest; refuse a folder whose results came from other settings or other recordings."""
    fixed = settings.model_dump(mode="json", include={"folds", "kappa", "options", "model", "train", "schedule"})
    fixed["recordings"] = {
        name: hashlib.sha256("".join(part.inspection.digests).encode()).hexdigest() if part.inspection else ""
        for (name, _), part in sorted(data.items())
    }
    place = out / "manifest.json"
    if place.exists():
        try:
            before = json.loads(place.read_text())["fixed"]
        except (ValueError, KeyError, TypeError):
            raise OutputError(f"{place} is damaged.", "Choose an empty --out folder.") from None
        recordings = before.pop("recordings", {})
        ours = fixed.pop("recordings")
        if before != fixed or any(recordings.get(name, value) != value for name, value in ours.items()):
            raise OutputError(f"{out} holds results of other settings.", "Choose an empty --out folder.")
        fixed["recordings"] = recordings | ours
    record = run_manifest(command) | {"settings": settings.model_dump(mode="json"), "fixed": fixed}
    write_text(place, json.dumps(record, indent=1))
