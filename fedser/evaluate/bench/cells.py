"""One job: train its source model, and fill its cells."""

from __future__ import annotations

import resource
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings
from fedser.errors import FedserError
from fedser.evaluate import protocols
from fedser.evaluate.bench import corpora as corpora_
from fedser.evaluate.bench.contest import Answers, Contest
from fedser.evaluate.bench.corpora import CLEAN, TELEPHONE, Corpora
from fedser.evaluate.bench.nonspeech import noise_site
from fedser.evaluate.bench.plan import Cell, Job
from fedser.evaluate.bench.scores import by_speaker, scores
from fedser.evaluate.bench.settings import BenchSettings
from fedser.evaluate.bench.store import Key, Row
from fedser.evaluate.bench.target_sets import TargetSet, draw
from fedser.evaluate.protocols import View
from fedser.evaluate.source import train_source
from fedser.models import features_for

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Shared:
    """What all jobs of a process work with."""

    settings: BenchSettings
    corpora: Corpora


_shared: list[Shared] = []  # filled once in each process


def start(shared: Shared) -> None:
    """Prepare this process."""
    _shared[:] = [shared]


def compute(job: Job) -> tuple[list[Row], list[str]]:
    """The rows of a job's cells, in their order, each with its ``counts`` by speaker, and what failed, in words."""
    settings, data = _shared[0].settings, _shared[0].corpora
    rule = NormalisationSettings.model_validate({"rule": job.normalisation, "kappa": settings.kappa})
    parts = [data[name, job.features, CLEAN] for name in job.sources]
    source = corpora_.labelled(parts, job.classes, rule)
    models = train_source(
        source.x, source.y, source.speakers, job.classes, settings.model, settings.train, seed=job.seed, device=CPU
    )
    contest = Contest(
        models,
        source,
        job.classes,
        settings.options,
        settings.schedule,
        settings.model,
        settings.train,
        job.seed,
    )
    rows, failures = list[Row](), list[str]()
    for target, target_set in dict.fromkeys((cell.target, cell.target_set) for cell in job.cells):
        own = [cell for cell in job.cells if (cell.target, cell.target_set) == (target, target_set)]
        drawn = _drawn(settings, data, job, target, target_set)
        labels = drawn.data.labels(job.classes)
        answers: dict[tuple[str, str], Answers | FedserError] = {}
        for group, wanted in _groups(own):
            try:
                views = _views(drawn, rule, group, settings.folds, job.seed)
            except FedserError as error:  # a sample may hold too few speakers for folds
                answers |= dict.fromkeys(wanted, error)
            else:
                answers |= contest.run(views, labels, wanted)
        for cell in own:
            found = answers[cell.method, cell.protocol]
            if isinstance(found, FedserError):
                failures.append(f"{_told(job.key(cell))}: {found}")
            else:
                rows.append(_row(settings, job, cell, drawn.data, labels, found))
    return rows, failures


def _told(key: Key) -> str:
    where = f"{key.source} → {key.target}, {key.target_set}, {key.protocol}, {key.method}"
    return f"{where}, {key.features}, normalisation {key.normalisation}, seed {key.seed}"


def _drawn(settings: BenchSettings, data: Corpora, job: Job, target: str, target_set: str) -> TargetSet:
    if target_set == "nonspeech":
        return TargetSet(noise_site(features_for(settings.model, job.features), job.seed))
    line = TELEPHONE if target_set == "telephone" else CLEAN
    return draw(data[target, job.features, line], target_set, job.classes, job.seed)


def _groups(cells: Iterable[Cell]) -> list[tuple[tuple[str, ...], list[tuple[str, str]]]]:
    """Protocols that share their adaptations, and the (method, protocol) that are wanted of each group."""
    wanted = [(cell.method, cell.protocol) for cell in cells]
    groups = [[key for key in wanted if (key[1] == "transductive") is whole] for whole in (True, False)]
    return [(tuple(dict.fromkeys(protocol for _, protocol in own)), own) for own in groups if own]


def _views(drawn: TargetSet, rule: NormalisationSettings, group: Sequence[str], folds: int, seed: int) -> list[View]:
    if "transductive" not in group:
        return protocols.inductive(drawn.data, rule, group, folds=folds, seed=seed)
    return [protocols.transductive(drawn.data, rule, site) for site in drawn.sites or (None,)]


def _row(settings: BenchSettings, job: Job, cell: Cell, data: SpeechData, labels: Tensor, answers: Answers) -> Row:
    return job.key(cell)._asdict() | {
        "encoder": settings.model.encoder,
        "classes": "|".join(job.classes),
        "seconds": round(answers.seconds, 3),
        "peak_mb": peak_mb(),
        "chosen_by_guard": "|".join(answers.chosen),
        "counts": by_speaker(answers.probabilities, labels, data.speakers),
        **scores(answers.probabilities, labels),
    }


def peak_mb() -> int:
    """The largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
