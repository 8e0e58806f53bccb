"""A federation in one process: source, alone, federated, personal, pooled and newcomer side by side.

``RUN/results.json``, schema 1 (fractions of 1, unless "percent" is said)::

    {"kind": "simulation", "schema": 1, "name": str,
     "created": "2026-01-31T12:00:00+00:00", "versions": {"fedser": .., "torch": .., "python": ..},
     "command": str, "git": str | null, "config": {the whole configuration}, "seeds": [int], "device": "cpu",
     "seconds": float, "peak_memory_mb": float,
     "classes": [str],                       in the order of the confusion matrices and of the model's head
     "left_out": {emotion: utterances},      target utterances that are neither adapted on nor scored
     "source": {"kind": "trained" | "bundle", "name": str, "corpora": {name: utterances}},
     "sites": [{"name": str, "utterances": int, "speakers": int, "emotions": {emotion: int},
                "normalisation": {"rule": str, "kappa": float, "reason": str}}],
     "settings": {NAME: {                    source, bn, alone, federated, personal, pooled, newcomer, in this order
         "label": str,                       one line for a table
         "seeds": [{"seed": int, "uar": x, "war": x, "macro_f1": x, "ece": x, "mean_site_uar": x,
                    "worst_site_uar": x, "sites": {site: uar}}],
         "mean": {"uar": x, "war": x, "macro_f1": x, "ece": x, "mean_site_uar": x, "worst_site_uar": x},
         "std": {the same keys},             over seeds, n - 1 in the denominator; 0 for one seed
         "confusion": [[int]],               rows are true, columns predicted; summed over seeds
         "recall": {class: x | null},        from that matrix; null for a class without utterances
         "reliability": [{"confidence": x, "accuracy": x, "count": int}]}},   non-empty bins, all seeds
     "curves": {NAME: [{"seed": int, "round": int, "uar": x, "worst_site_uar": x}]},
                                             federated and personal; round 0 is before the first round
     "uar": {NAME: percent},                 mean over seeds, what --format json prints
     "embeddings": [{"label": str, "points": [[x, y]], "classes": [int]}],   t-SNE of the first seed's bottleneck
     "refusals": [{"seed": int, "setting": str, "round": int, "site": str, "code": str}]}

Beside it ``results.csv`` (one row a setting and seed), ``predictions.csv`` (seed, setting, site, path, emotion,
predicted, confidence) and ``report.html``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedser import console
from fedser.audio.dataset import SpeechData
from fedser.compute import one_thread
from fedser.evaluate import pool
from fedser.evaluate.contenders import SeedResult, check, run_seed
from fedser.evaluate.report import write_report
from fedser.evaluate.results import collect, write_tables
from fedser.evaluate.simulation_settings import SimulationSettings
from fedser.evaluate.world import World, build
from fedser.files import output_folder
from fedser.provenance import run_manifest


def run(
    settings: SimulationSettings,
    out: Path,
    *,
    jobs: int = 1,
    device: torch.device = torch.device("cpu"),
    command: str = "",
) -> dict[str, Any]:
    """Run a simulation and write its results and report; the result does not depend on ``jobs``.

    Args:
        settings: the whole configuration.
        out: folder for the results.
        jobs: processes, of one thread each; seeds run beside each other.
        device: where models are trained; with several jobs, use the CPU.
        command: the command line, for the report.

    Returns:
        What ``results.json`` holds, and ``report``, the path of the HTML file.

    Raises:
        FedserError: data, settings or the folder do not fit.
    """
    begin = time.perf_counter()
    check(settings)
    output_folder(out)
    world = build(settings, device)
    seeds = []
    with console.progress("seeds", len(settings.seeds)) as step:
        for result in _seeds(settings, world, jobs, device):
            seeds.append(result)
            step()
    results = collect(settings, world, seeds)
    about = run_manifest(command)
    results["created"] = about["date"]
    results["command"] = about["command"]
    results["versions"] = {"python": about["python"], **about["versions"]}
    results["git"] = about["git"]
    results["device"] = str(device)
    results["seconds"] = round(time.perf_counter() - begin, 1)
    results["peak_memory_mb"] = _peak_mb()
    write_tables(out, results, world, seeds)
    return {**results, "report": str(write_report(out))}


def _seeds(settings: SimulationSettings, world: World, jobs: int, device: torch.device) -> Iterator[SeedResult]:
    """The result of each seed, in the settings' order."""
    if jobs <= 1 or len(settings.seeds) == 1:
        one_thread()
        for seed in settings.seeds:
            yield run_seed(settings, world, seed, device)
        return
    count = min(jobs, len(settings.seeds))
    start = _Start(settings, _pack(world), device)
    for packed in pool.results(_one_seed, settings.seeds, _begin, start, count, ordered=True):
        yield replace(packed.result, probabilities=_tensors(packed.probabilities), embedded=_tensors(packed.embedded))


Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class _PackedWorld:
    """A world whose tensors travel to another process as plain arrays."""

    world: World
    source: Arrays
    target: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Start:
    """What every process works with."""

    settings: SimulationSettings
    packed: _PackedWorld
    device: torch.device


@dataclass(frozen=True)
class _PackedResult:
    result: SeedResult
    probabilities: Arrays
    embedded: Arrays


_here: list[tuple[SimulationSettings, World, torch.device]] = []  # filled once in each worker process


def _pack(world: World) -> _PackedWorld:
    empty = replace(
        world,
        source={name: _with(data, torch.zeros(0)) for name, data in world.source.items()},
        target=_with(world.target, torch.zeros(0)),
    )
    return _PackedWorld(
        empty, {name: data.raw.numpy() for name, data in world.source.items()}, world.target.raw.numpy()
    )


def _with(data: SpeechData, raw: torch.Tensor) -> SpeechData:
    return replace(data, raw=raw, inspection=None)


def _begin(start: _Start) -> None:
    packed = start.packed
    source = {name: _with(data, torch.from_numpy(packed.source[name])) for name, data in packed.world.source.items()}
    target = _with(packed.world.target, torch.from_numpy(packed.target))
    _here[:] = [(start.settings, replace(packed.world, source=source, target=target), start.device)]


def _one_seed(seed: int) -> _PackedResult:
    settings, world, device = _here[0]
    result = run_seed(settings, world, seed, device)
    plain = replace(result, probabilities={}, embedded={})
    return _PackedResult(plain, _arrays(result.probabilities), _arrays(result.embedded))


def _arrays(tensors: Mapping[str, torch.Tensor]) -> Arrays:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Arrays) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _peak_mb() -> float:
    """Peak resident memory of this process and of its largest worker, in MB."""
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return round(max(own, workers) / 1024, 1)
