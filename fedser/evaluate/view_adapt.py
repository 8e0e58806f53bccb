"""The report of an adaptation at one site; the schema of its results stands in :mod:`fedser.evaluate.outputs`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from fedser.evaluate import card, figures, view_left
from fedser.evaluate.pages import (
    Block,
    Drawing,
    Listing,
    Matrices,
    Number,
    Page,
    Section,
    Table,
    about,
    confusion_matrix,
    is_number,
    percent,
    signed,
)

Results = Mapping[str, Any]

_SCORES = {"uar": "UAR", "war": "WAR", "macro_f1": "macro-F1", "ece": "ECE"}


def view(results: Results) -> Page:
    """Arrange an adaptation's results; sections without data are left out."""
    metrics: Results = results.get("metrics") or {}
    classes = list(results.get("classes") or [])
    sections = [
        _quality(metrics, classes),
        _answers(results),
        _guard(results),
        _training(results),
        _normalisation(results),
        view_left.section(results),
        withdrawal(results),
        card.attack_section(results),
        Section("What these figures mean, and what they do not", blocks=[Listing(cautions(results, metrics))]),
        *about(results),
    ]
    matrix = metrics.get("confusion")
    return Page(
        title=str(results.get("name") or _title(results)),
        kind=str(results.get("made_by") or "fedser adapt"),
        lead=_lead(results, metrics),
        warnings=[str(note) for note in results.get("notes") or []],
        numbers=_numbers(results, metrics),
        sections=[section for section in sections if section is not None],
        files={"confusion": figures.confusion("adapted", classes, matrix)} if matrix else {},
    )


def _title(results: Results) -> str:
    method = results.get("method", "an unknown method")
    return "The source model, as published" if method == "source" else f"Adapted with {method}"


def departed(results: Results) -> Page:
    """The report of a site that left before it had a model."""
    sections = [withdrawal(results), view_left.section(results), *about(results)]
    return Page(
        title=str(results.get("name") or "A site that left its study"),
        kind=str(results.get("made_by") or "fedser-client"),
        lead=["The site left before the study's last order: there is no personal model."],
        sections=[section for section in sections if section is not None],
    )


def withdrawal(results: Results) -> Section | None:
    """Who withdrew, in counts and rounds; None where nobody did."""
    told: Results = results.get("withdrawal") or {}
    if not told:
        return None
    text, count = [], int(told.get("speakers") or 0)
    if told.get("site_left") is not None:
        knows = "the provider knows it" if told.get("signed_off") else "the provider could not be told yet"
        text.append(f"This site left the study at {view_left.moment(told['site_left'])} UTC; {knows}.")
    if count:
        who = f"{count} speaker{' has' if count == 1 else 's have'} withdrawn, {told.get('took_part')} of them after "
        text.append(
            f"{who}taking part in rounds. Their recordings are left out of every round since, and of this page."
        )
    if told.get("rebuilt_from") is not None:
        origin = int(told["rebuilt_from"])
        begin = f"the joint model that round {origin} began with" if origin else "the signed bundle"
        text.append(
            f"The personal model is adapted from {begin}, the last before they took part (round "
            f"{told.get('first_round')}), on the speakers who are left."
        )
    undone = [str(thing) for thing in told.get("undone") or []]
    return Section("Withdrawal", [*text, "What cannot be undone:"], [Listing(undone)])


def _lead(results: Results, metrics: Results) -> list[str]:
    bundle = results.get("bundle") or {}
    corpora = ", ".join(str(name) for name in bundle.get("corpora") or []) or "unknown corpora"
    kept = bool(results.get("guard")) and results.get("method") == "source"
    lines = [
        f"The source model {bundle.get('name', '')} (trained on {corpora}) was {'kept' if kept else 'adapted'} "
        f"{'for' if kept else 'to'} {results.get('utterances', '–')} utterances of "
        f"{results.get('speakers', 0) or 'unknown'} speakers, without their labels."
    ]
    if kept:
        lines.append(f"The guard preferred it to every adapted model: {results['guard'].get('reason', '')}")
    if is_number(metrics.get("uar")) and is_number(metrics.get("source_uar")):
        gain = 100 * (metrics["uar"] - metrics["source_uar"])
        lines.append(
            f"On the {metrics.get('scored', '–')} utterances that have a label, UAR went from "
            f"{percent(metrics['source_uar'])} to {percent(metrics['uar'])} % ({signed(gain)} points)."
        )
    else:
        lines.append("There were no labels to compare with, so this report cannot say how often the answers are right.")
    if results.get("quarantined"):
        lines.append(f"{results['quarantined']} recordings were set aside; quarantine.csv says why.")
    return lines


def _numbers(results: Results, metrics: Results) -> list[Number]:
    if not metrics:
        return [
            Number("utterances", str(results.get("utterances", "–")), main=True),
            Number("mean confidence", percent(results.get("mean_confidence"))),
        ]
    adapted = [Number(label, percent(metrics.get(key)), main=key == "uar") for key, label in _SCORES.items()]
    return [Number("UAR before", percent(metrics.get("source_uar"))), *adapted]


def _quality(metrics: Results, classes: list[str]) -> Section | None:
    blocks: list[Block] = []
    if metrics.get("recall"):
        rows = [["adapted", *(percent(metrics["recall"].get(name)) for name in classes)]]
        blocks.append(Table("Recall of each emotion, percent", ("", *classes), rows))
    if metrics.get("confusion"):
        blocks.append(Matrices([confusion_matrix("Adapted model", classes, metrics["confusion"])]))
    text = "The labels served for these figures only. Rows are the true emotions, columns the answers."
    return Section("Against the labels", [text], blocks) if blocks else None


def _guard(results: Results) -> Section | None:
    guard: Results = results.get("guard") or {}
    scores: Mapping[str, Results] = guard.get("scores") or {}
    if not scores:
        return None
    names = list(next(iter(scores.values())))
    uar: Results = guard.get("uar") or {}
    rows = [
        [str(candidate), *(f"{values.get(name, float('nan')):.3f}" for name in names)]
        + ([percent(uar.get(candidate))] if uar else [])
        for candidate, values in scores.items()
    ]
    chosen = str(guard.get("chosen"))
    text = [
        f"Chosen: {chosen}. {guard.get('reason', '')}",
        "No label had a part in it: docs/guard.md says what decides.",
    ]
    if uar:
        text.append("The last column stands beside the scores for comparison; the labels were read after the choice.")
    columns = ("candidate", *(name.replace("_", " ") for name in names), *(["UAR"] if uar else []))
    best = {(row, 0) for row, candidate in enumerate(scores) if candidate == chosen}
    return Section("The guard", text, [Table("Label-free scores", columns, rows, best=best)])


def _answers(results: Results) -> Section | None:
    answers = results.get("answers") or {}
    total = sum(answers.values())
    if not total:
        return None
    rows = [[str(emotion), str(count), percent(count / total)] for emotion, count in answers.items()]
    text = "A distribution that you know to be wrong (one emotion everywhere, say) is a sign that adaptation failed."
    return Section("What the model answers", [text], [Table("Answers", ("emotion", "utterances", "percent"), rows)])


def _training(results: Results) -> Section | None:
    history = results.get("history") or []
    lines: dict[str, dict[float, list[float]]] = {}
    for number, entry in enumerate(history):
        for name, value in entry.items():
            if name not in ("epoch", "step") and is_number(value):
                lines.setdefault(str(name), {})[float(entry.get("epoch", number))] = [float(value)]
    if not lines:
        return None
    drawing = figures.curves(lines, x="epoch", y="value", name="history")
    alt = "Loss and entropy over the epochs: " + ", ".join(
        f"{name} from {points[min(points)][0]:.2f} to {points[max(points)][0]:.2f}" for name, points in lines.items()
    )
    caption = "Label-free: the loss, its parts, and the mean entropy of the answers (nats)."
    return Section("The adaptation", blocks=[Drawing("history", Markup(drawing), alt, caption)])  # noqa: S704


def _normalisation(results: Results) -> Section | None:
    chosen = results.get("normalisation") or {}
    if not chosen:
        return None
    kappa = f", κ = {chosen['kappa']:g}" if is_number(chosen.get("kappa")) else ""
    return Section("Normalisation", [f"Rule: {chosen.get('rule', '–')}{kappa}.", str(chosen.get("reason") or "")])


def cautions(results: Results, metrics: Results) -> list[str]:
    """What the figures do not say."""
    classes = results.get("allowed") or results.get("classes") or []
    lines = [
        f"Guessing among {len(classes)} emotions gives a UAR of {100 / max(len(classes), 1):.1f} %.",
        "A confidence was calibrated on the source's speakers; after adaptation it is an indication only.",
        "The model answers with categories that somebody chose. They are not what a person feels, and no basis for "
        "a decision about a person.",
    ]
    if metrics:
        lines.append(
            "The figures are transductive: the model adapted to the utterances on which it is scored. On new "
            "speakers expect less."
        )
    return lines
