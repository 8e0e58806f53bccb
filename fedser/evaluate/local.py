"""``fedser adapt`` from recordings to a finished folder: model, predictions, metrics where labels exist, report.

``OUT/results.json``, schema 1 (fractions of 1)::

    {"kind": "adapt", "schema": 1, "created", "command", "versions", "git", "config", "seconds",
     "bundle": {"name", "version", "corpora"}, "method": str, "options": {..}, "classes": [str], "allowed": [str],
     "utterances": int, "speakers": int, "quarantined": int,
     "normalisation": {"rule", "kappa", "reason"},
     "history": [{"epoch", "loss", ..}], "answers": {emotion: count}, "mean_confidence": x,
     "metrics": null | {"uar", "war", "macro_f1", "ece", "scored", "confusion", "recall", "source_uar"}}
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedser import adapt as adaptation
from fedser import bundle as bundles
from fedser import compute
from fedser.adapt.method import Gradient, Method
from fedser.adapt.schedule import Schedule
from fedser.adapt.site import Answer, LocalRun, SiteModel, adapt_site, check_threshold, class_mask
from fedser.audio import dataset, labels, quality
from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings
from fedser.audio.utterance import Utterance
from fedser.bundle import Bundle
from fedser.config import assign, validate
from fedser.evaluate import metrics
from fedser.evaluate.report import write_report
from fedser.files import output_folder, write_text
from fedser.provenance import run_manifest


@dataclass(frozen=True)
class LocalSettings:
    """What ``fedser adapt`` was asked for; None stands for the bundle's or the method's own choice."""

    data: Path
    bundle: Path | None = None
    signer: str | None = None
    method: str = "ecan"
    options: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    corpus: str | None = None
    speaker_from: str | None = None
    normalisation: str | None = None
    epochs: int | None = None
    unknown_below: float = 0.0
    seed: int = 0
    device: str = "auto"


def run(settings: LocalSettings, out: Path, *, command: str) -> dict[str, Any]:
    """Adapt and write everything to ``out``; returns what the command prints.

    Raises:
        FedserError: the leaf that fits; nothing is half-written.
    """
    begin = time.perf_counter()
    compute.one_thread()
    device = compute.device(settings.device)
    bundle = bundles.read(settings.bundle, signer=settings.signer)
    check_threshold(settings.unknown_below)
    allowed = _allowed(settings.classes, bundle.header.classes)
    method = adaptation.make(settings.method, _options(settings.options))
    rule = (
        validate(NormalisationSettings, {"rule": settings.normalisation}, "--normalisation")
        if settings.normalisation
        else bundle.header.normalisation
    )
    output_folder(out)
    data = dataset.load(
        settings.data,
        bundle.header.features,
        corpus=settings.corpus,
        speaker_from=settings.speaker_from,
        device=device,
    )
    local = adapt_site(
        bundle,
        data.raw,
        data.speakers,
        method,
        seed=settings.seed,
        device=device,
        schedule=_schedule(method, settings.epochs),
        normalisation=rule,
        allowed=allowed,
        unknown_below=settings.unknown_below,
    )
    return _write(settings, out, command, bundle, data, local, begin)


def _write(
    settings: LocalSettings,
    out: Path,
    command: str,
    bundle: Bundle,
    data: SpeechData,
    local: LocalRun,
    begin: float,
) -> dict[str, Any]:
    site, normaliser = local.site, local.site.normaliser
    scores = score(data, site, local.answer, bundle)
    site.save(out / "model.safetensors")
    write_text(out / "predictions.csv", table(data.utterances, site, local.answer), mode=0o600)
    if data.inspection is not None:
        quality.write_quarantine(out / "quarantine.csv", data.inspection)
    results = {
        "kind": "adapt",
        "schema": 1,
        **run_manifest(command),
        "bundle": {
            "name": bundle.header.name,
            "version": bundle.header.version,
            "corpora": list(bundle.header.corpora),
        },
        "method": site.header.method,
        "options": site.header.options,
        "seeds": [settings.seed],
        "classes": list(site.header.classes),
        "allowed": list(site.header.allowed),
        "utterances": len(data),
        "speakers": len({s for s in data.speakers if s is not None}),
        "quarantined": len(data.inspection.quarantined) if data.inspection else 0,
        "normalisation": {"rule": normaliser.rule, "kappa": normaliser.kappa, "reason": normaliser.reason},
        "history": local.history,
        "answers": dict(Counter(local.answer.emotions).most_common()),
        "mean_confidence": sum(local.answer.confidences) / len(data),
        "metrics": scores,
        "seconds": round(time.perf_counter() - begin, 2),
    }
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False), mode=0o600)
    report = write_report(out)
    return {
        "method": site.header.method,
        "utterances": len(data),
        "quarantined": results["quarantined"],
        "normalisation": f"{normaliser.rule} (κ {normaliser.kappa:g})" if normaliser.kappa else normaliser.rule,
        "normalisation_reason": normaliser.reason,
        "metrics": _percent(scores),
        "model": str(out / "model.safetensors"),
        "predictions": str(out / "predictions.csv"),
        "report": str(report),
        "seconds": results["seconds"],
    }


def score(data: SpeechData, site: SiteModel, answer: Answer, bundle: Bundle) -> dict[str, Any] | None:
    """Metrics over the utterances whose label is one of the site's classes; None without such labels."""
    classes = site.header.classes
    true = data.labels(classes)
    known = (true >= 0) & site.class_mask[true]
    if not bool(known.any()):
        return None
    p, y = answer.probabilities[known], true[known]
    guess = p.argmax(1)
    confusion = metrics.confusion(y, guess, len(classes))
    before = SiteModel(site.header, bundle.classifier(), site.normaliser)
    plain = before.answer(data.raw[known], [s for s, k in zip(data.speakers, known.tolist(), strict=True) if k])
    return {
        "uar": metrics.uar(y, guess),
        "war": metrics.war(y, guess),
        "macro_f1": metrics.macro_f1(y, guess),
        "ece": metrics.ece(p, y),
        "source_uar": metrics.uar(y, plain.probabilities.argmax(1)),
        "scored": int(known.sum()),
        "confusion": confusion.tolist(),
        "recall": {
            name: (float(row[k] / row.sum()) if row.sum() else None)
            for k, (name, row) in enumerate(zip(classes, confusion, strict=True))
        },
    }


def table(utterances: Sequence[Utterance], site: SiteModel, answer: Answer) -> str:
    """Predictions as CSV: where the utterance lies, the answer, its confidence, all classes, the statistics."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    classes = site.header.classes
    writer.writerow(["path", "start", "end", "channel", "speaker", "emotion", "confidence", *classes, "statistics"])
    for row, utterance in enumerate(utterances):
        place = [utterance.path, utterance.start, utterance.end, utterance.channel, utterance.speaker]
        writer.writerow(
            ["" if value is None else value for value in place]
            + [answer.emotions[row], f"{answer.confidences[row]:.4f}"]
            + [f"{p:.4f}" for p in answer.probabilities[row].tolist()]
            + [answer.statistics[row]]
        )
    return text.getvalue()


def _percent(scores: dict[str, Any] | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    names = ("uar", "war", "macro_f1", "ece", "source_uar")
    return {name: round(100 * scores[name], 2) for name in names} | {"scored": scores["scored"]}


def _allowed(given: tuple[str, ...] | None, known: Sequence[str]) -> tuple[str, ...] | None:
    """The emotions of ``--classes`` as the bundle writes them, refused before any work."""
    if given is None:
        return None
    allowed = tuple(dict.fromkeys(labels.ALIASES.get(labels.normalise(word), word) for word in given))
    class_mask(known, allowed)
    return allowed


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        assign(options, pair)
    return options


def _schedule(method: Method, epochs: int | None) -> Schedule | None:
    if epochs is None:
        return None
    base = method.schedule if isinstance(method, Gradient) else Schedule()
    return base.model_copy(update={"epochs": epochs, "steps": None})
