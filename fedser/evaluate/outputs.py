"""What an adaptation leaves in its folder: model, predictions, metrics where labels exist, report.

``results.json``, schema 1 (fractions of 1)::

    {"kind": "adapt", "schema": 1, "created", "command", "versions", "git", "config", "seconds",
     "bundle": {"name", "version", "corpora"}, "method": str, "options": {..}, "classes": [str], "allowed": [str],
     "utterances": int, "speakers": int, "quarantined": int,
     "normalisation": {"rule", "kappa", "reason"},
     "guard": null | {"chosen": name, "reason": sentence, "scores": {candidate: {score: x}},
                      "uar": null | {candidate: x}},
     "history": [{"epoch", "loss", ..}], "answers": {emotion: count}, "mean_confidence": x,
     "metrics": null | {"uar", "war", "macro_f1", "ece", "scored", "confusion", "recall", "source_uar"}}

After rounds over a network also ``name``, ``made_by`` and ``left``, see :mod:`fedser.evaluate.view_left`; where
somebody withdrew ``withdrawal``, and ``attacks`` once the attack lab's results were attached.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedser.adapt.local import LocalRun
from fedser.adapt.site import Answer, SiteModel
from fedser.audio import quality
from fedser.audio.dataset import SpeechData
from fedser.audio.utterance import Utterance
from fedser.bundle import Bundle
from fedser.evaluate import metrics
from fedser.evaluate.report import CARD, write_report
from fedser.files import write_text
from fedser.provenance import run_manifest


def write(
    out: Path,
    bundle: Bundle,
    data: SpeechData,
    local: LocalRun,
    *,
    command: str,
    seconds: float,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write model, ``predictions.csv``, ``quarantine.csv``, ``results.json``, ``report.html`` and ``model_card.md``.

    Args:
        out: the folder.
        bundle: what was adapted.
        data: the site's utterances.
        local: the adapted model and its answers for ``data``.
        command: the command line, for the report.
        seconds: how long it took.
        extra: further entries of ``results.json``.

    Returns:
        What the command prints.

    Raises:
        OutputError: the folder cannot be written.
    """
    site, normaliser = local.site, local.site.normaliser
    scores, guard = score(data, site, local.answer, bundle), guarded(data, local)
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
        "seeds": [site.header.seed],
        "classes": list(site.header.classes),
        "allowed": list(site.header.allowed),
        "utterances": len(data),
        "speakers": len({s for s in data.speakers if s is not None}),
        "quarantined": len(data.inspection.quarantined) if data.inspection else 0,
        "normalisation": {"rule": normaliser.rule, "kappa": normaliser.kappa, "reason": normaliser.reason},
        "guard": guard,
        "history": local.history,
        "answers": dict(Counter(local.answer.emotions).most_common()),
        "mean_confidence": sum(local.answer.confidences) / len(data),
        "metrics": scores,
        "seconds": round(seconds, 2),
        **(extra or {}),
    }
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False), mode=0o600)
    report = write_report(out)
    return {
        "method": site.header.method,
        "utterances": len(data),
        "quarantined": results["quarantined"],
        "normalisation": f"{normaliser.rule} (κ {normaliser.kappa:g})" if normaliser.kappa else normaliser.rule,
        "normalisation_reason": normaliser.reason,
        "guard": guard and {key: guard[key] for key in ("chosen", "reason")} | {"candidates": list(guard["scores"])},
        "metrics": _percent(scores),
        "model": str(out / "model.safetensors"),
        "predictions": str(out / "predictions.csv"),
        "report": str(report),
        "card": str(out / CARD),
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


def guarded(data: SpeechData, local: LocalRun) -> dict[str, Any] | None:
    """What the guard chose, its scores and, where labels exist, every candidate's UAR; None without a guard.

    The labels are looked at here for the first time, after the choice.
    """
    if local.choice is None:
        return None
    true = data.labels(local.site.header.classes)
    known = (true >= 0) & local.site.class_mask[true]
    uar = {name: metrics.uar(true[known], p[known].argmax(1)) for name, p in local.candidates.items()}
    return {
        "chosen": local.choice.name,
        "reason": local.choice.reason,
        "scores": local.choice.scores,
        "uar": uar if bool(known.any()) else None,
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
