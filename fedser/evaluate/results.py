"""From predictions to ``results.json`` and its tables; the schema stands in :mod:`fedser.evaluate.simulate`."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedser.evaluate import metrics
from fedser.evaluate.contenders import SeedResult
from fedser.evaluate.embedding import embeddings
from fedser.evaluate.pages import number_of
from fedser.evaluate.simulation_settings import SimulationSettings
from fedser.evaluate.world import World, labels_of
from fedser.files import write_text

LABELS = {
    "source": "source model as published",
    "bn": "source, normalisation statistics of the site",
    "alone": "each site alone",
    "federated": "federated, joint weights at all sites",
    "personal": "federated, last steps at the site",
    "pooled": "all data in one place",
    "newcomer": "others' federated model, untrained",
}
SCORES = ("uar", "war", "macro_f1", "ece", "mean_site_uar", "worst_site_uar")


def collect(settings: SimulationSettings, world: World, seeds: Sequence[SeedResult]) -> dict[str, Any]:
    """Everything that the results hold besides the manifest of the run, as JSON-able values."""
    by_name = {name: _setting(name, world, seeds) for name in settings.contenders}
    return {
        "kind": "simulation",
        "schema": 1,
        "name": settings.name,
        "config": settings.model_dump(mode="json"),
        "seeds": list(settings.seeds),
        "classes": list(world.classes),
        "left_out": dict(world.left_out),
        "source": _source(settings, world),
        "sites": _sites(world, seeds[0]),
        "settings": by_name,
        "curves": {
            name: [
                {"seed": result.seed, "round": number, "uar": _plain(total), "worst_site_uar": _plain(worst)}
                for result in seeds
                for number, total, worst in result.curves.get(name, ())
            ]
            for name in ("federated", "personal")
            if name in settings.contenders
        },
        "uar": {name: _percent(entry["mean"]["uar"]) for name, entry in by_name.items()},
        "embeddings": embeddings(world, seeds),
        "refusals": [
            {"seed": result.seed, "setting": name, "round": number, "site": site, "code": code}
            for result in seeds
            for name, number, site, code in result.refusals
        ],
    }


def _setting(name: str, world: World, seeds: Sequence[SeedResult]) -> dict[str, Any]:
    rows = [{"seed": result.seed, **_scores(world, result.probabilities[name])} for result in seeds]
    labels = labels_of(world)
    scored = labels >= 0
    true = torch.cat([labels[scored] for _ in seeds])
    p = torch.cat([torch.as_tensor(result.probabilities[name])[scored] for result in seeds])
    matrix = metrics.confusion(true, p.argmax(dim=1), len(world.classes))
    recalls = metrics.recall(true, p.argmax(dim=1), len(world.classes))
    return {
        "label": LABELS[name],
        "seeds": rows,
        "mean": {score: _plain(_mean([row[score] for row in rows])) for score in SCORES},
        "std": {score: _plain(_std([row[score] for row in rows])) for score in SCORES},
        "confusion": matrix.tolist(),
        "recall": {c: _plain(float(value)) for c, value in zip(world.classes, recalls, strict=True)},
        "reliability": [
            {"confidence": confidence, "accuracy": accuracy, "count": count}
            for confidence, accuracy, count in metrics.reliability(p, true)
        ],
    }


def _scores(world: World, probabilities: torch.Tensor) -> dict[str, Any]:
    p = torch.as_tensor(probabilities)
    labels, answers = labels_of(world), p.argmax(dim=1)
    scored = labels >= 0
    true, answered = labels[scored], answers[scored]
    sites = {}
    for site in world.sites:
        own = [row for row in site.index if scored[row]]
        sites[site.name] = _plain(metrics.uar(labels[own], answers[own]))
    each = [value for value in sites.values() if value is not None]
    return {
        "uar": metrics.uar(true, answered),
        "war": metrics.war(true, answered),
        "macro_f1": metrics.macro_f1(true, answered),
        "ece": metrics.ece(p[scored], true),
        "mean_site_uar": _mean(each),
        "worst_site_uar": min(each, default=math.nan),
        "sites": sites,
    }


def _sites(world: World, first: SeedResult) -> list[dict[str, Any]]:
    entries = []
    for site, (rule, kappa, reason) in zip(world.sites, first.sites, strict=True):
        own = [world.target.utterances[row] for row in site.index]
        entries.append(
            {
                "name": site.name,
                "utterances": len(own),
                "speakers": len({utterance.speaker for utterance in own}),
                "emotions": dict(sorted(Counter(utterance.emotion or "none" for utterance in own).items())),
                "normalisation": {"rule": rule, "kappa": kappa, "reason": reason},
            }
        )
    return entries


def _source(settings: SimulationSettings, world: World) -> dict[str, Any]:
    if world.source:
        sizes = {name: len(data) for name, data in world.source.items()}
        return {"kind": "trained", "name": "+".join(sizes), "corpora": sizes}
    return {"kind": "bundle", "name": str(settings.source.bundle or "default"), "corpora": {}}


def write_tables(out: Path, results: Mapping[str, Any], world: World, seeds: Sequence[SeedResult]) -> None:
    """Write ``results.json``, ``results.csv`` and ``predictions.csv``.

    Raises:
        OutputError: the folder cannot be written.
    """
    rows = [
        {"setting": name, "seed": row["seed"], **{score: _shown(row[score]) for score in SCORES}}
        for name, entry in results["settings"].items()
        for row in entry["seeds"]
    ]
    write_text(out / "results.csv", _csv(("setting", "seed", *SCORES), rows))
    write_text(out / "predictions.csv", _csv(_PREDICTION, _predictions(world, seeds)))
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


_PREDICTION = ("seed", "setting", "site", "path", "emotion", "predicted", "confidence")


def _predictions(world: World, seeds: Sequence[SeedResult]) -> list[dict[str, Any]]:
    site_of = {row: site.name for site in world.sites for row in site.index}
    rows = []
    for result in seeds:
        for name, probabilities in result.probabilities.items():
            p = np.asarray(probabilities)
            for row, utterance in enumerate(world.target.utterances):
                best = int(p[row].argmax())
                values = (result.seed, name, site_of[row], utterance.path, utterance.emotion or "")
                answer = (world.classes[best], f"{p[row, best]:.4f}")
                rows.append(dict(zip(_PREDICTION, (*values, *answer), strict=True)))
    return rows


def table(results: Mapping[str, Any]) -> str:
    """The results as a text table: percent, mean ± standard deviation over seeds."""
    width = max(len(entry["label"]) for entry in results["settings"].values())
    lines = [f"{'':{width}}      UAR            WAR        mean of sites   worst site"]
    for entry in results["settings"].values():
        cells = [_cell(entry, score) for score in ("uar", "war", "mean_site_uar", "worst_site_uar")]
        lines.append(f"{entry['label']:{width}}  " + "  ".join(f"{cell:>13}" for cell in cells))
    sizes = ", ".join(f"{site['name']} {site['utterances']}" for site in results["sites"])
    lines += ["", f"{number_of(len(results['seeds']), 'seed')}, percent; utterances: {sizes}"]
    if results["refusals"]:
        lines.append(f"{len(results['refusals'])} orders were refused; results.json says by whom and why")
    return "\n".join(lines)


def _cell(entry: Mapping[str, Any], score: str) -> str:
    mean, std = entry["mean"][score], entry["std"][score]
    return "–" if mean is None else f"{100 * mean:.1f} ± {100 * std:.1f}"


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _plain(value: float) -> float | None:
    """JSON has no NaN: a score that does not exist is null."""
    return None if math.isnan(value) else float(value)


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 2)


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
