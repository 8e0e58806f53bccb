"""The model card, ``model_card.md``: what a site's model is, which privacy held while it was made, what left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedser.evaluate import view_left
from fedser.evaluate.pages import Section, Table, percent
from fedser.privacy import sentences

Results = Mapping[str, Any]

#: Of the attack lab's rows: the key, and the column's name.
_COLUMNS = {
    "attack": "attack",
    "setting": "setting",
    "where": "the attacker looks at",
    "measure": "measure",
    "value": "value",
    "interval": "95 % interval",
    "chance": "chance",
    "of": "of",
    "limit": "limit",
    "kept": "kept",
}


def text(results: Results, cautions: Iterable[str]) -> str:
    """The card as Markdown.

    Args:
        results: of an adaptation, see :mod:`fedser.evaluate.outputs`.
        cautions: what the figures do not say.
    """
    bundle: Results = results.get("bundle") or {}
    corpora = ", ".join(map(str, bundle.get("corpora") or [])) or "unknown corpora"
    parts = [
        f"# Model card: {_plain(results.get('name') or 'adapted model')}",
        f"Adapted from the bundle {_plain(bundle.get('name'))} {bundle.get('version')} (trained on {_plain(corpora)}) "
        f"by the method {_plain(results.get('method'))}, on {results.get('utterances')} utterances without labels, "
        f"{results.get('quarantined') or 0} more set aside. Made by {_plain(results.get('made_by') or 'fedser adapt')} "
        f"on {_plain(results.get('date'))}.",
        "## Figures",
        _figures(results.get("metrics") or {}),
        "## Privacy",
        *_privacy(results),
        "## What left the site",
        *_left(results),
        "## Attacks",
        *_attacks(results.get("attacks") or []),
        *_withdrawal(results.get("withdrawal") or {}),
        "## What these figures mean, and what they do not",
        *(f"- {_plain(line)}" for line in cautions),
    ]
    return "\n\n".join(parts) + "\n"


def attack_section(results: Results) -> Section | None:
    """The report's section; None where no attack's results were given."""
    rows = results.get("attacks") or []
    if not rows:
        return None
    lead = "Controls show that an attack works where nothing defends; bars are for the setting that is defended."
    table = Table("Attack lab", tuple(_COLUMNS.values()), [_row(row) for row in rows], note=_made(rows))
    return Section("Attacks", [lead], [table])


def _privacy(results: Results) -> list[str]:
    left: Results = results.get("left") or {}
    if not left:
        return ["No update left the site: it adapted by itself, and privacy had not to be bought with noise."]
    told: Results = left.get("privacy") or {}
    rows = [
        ("unit", told.get("unit", "none")),
        ("ε (budget)", told.get("epsilon", "–")),
        ("δ", told.get("delta", "–")),
        ("ε spent", told.get("spent", "–")),
        ("accountant", told.get("accountant", "–")),
        ("masked sum", "yes" if told.get("masked") else "no"),
    ]
    return [
        "\n".join(["| | |", "|---|---|", *(f"| {name} | {_plain(value)} |" for name, value in rows)]),
        *sentences.sentences(told),
    ]


def _left(results: Results) -> list[str]:
    left: Results = results.get("left") or {}
    if not left:
        alone = results.get("made_by") == "fedser-client"
        return ["Nothing but the request for the published bundle." if alone else "Nothing."]
    counted = view_left.totals(list(left.get("records") or []))
    refused = ", ".join(f"{count} × {_plain(code)}" for code, count in counted["refused"].items()) or "none"
    lines = [
        f"{counted['orders']} orders were answered and {view_left.size(counted['bytes'])} left; "
        f"refused orders: {refused}.",
        "No message has a place for recordings, features, pseudo-labels, file names, speakers, normalisation "
        "statistics or the answers of the model.",
    ]
    if left.get("head"):
        lines.append(f"Last hash of the audit log's chain: `{_plain(left['head'])}`")
    return lines


def _attacks(rows: Sequence[Results]) -> list[str]:
    if not rows:
        return ["No attack was run on this model: `fedser report DIR --attacks ATTACK_DIR` puts results here."]
    head = ["| " + " | ".join(_COLUMNS.values()) + " |", "|" + "---|" * len(_COLUMNS)]
    table = "\n".join([*head, *("| " + " | ".join(_plain(cell) for cell in _row(row)) + " |" for row in rows)])
    return [table, _plain(_made(rows))]


def _row(row: Results) -> list[str]:
    return [str(row.get(key) or "–") for key in _COLUMNS]


def _made(rows: Sequence[Results]) -> str:
    """By which command, of which revision, and when."""
    runs = dict.fromkeys(tuple(str(row.get(key) or "–") for key in ("command", "git", "created")) for row in rows)
    return "; ".join(f"{command} (revision {git}, {created})" for command, git, created in runs)


def _withdrawal(told: Results) -> list[str]:
    if not told:
        return []
    count = told.get("speakers") or 0
    who = "1 speaker has" if count == 1 else f"{count} speakers have"
    lines = [f"{who} withdrawn, {told.get('took_part') or 0} after taking part."]
    if told.get("site_left") is not None:
        lines.append(f"The site left the study at {view_left.moment(told['site_left'])} UTC.")
    undone = "\n".join(f"- {_plain(thing)}" for thing in told.get("undone") or [])
    return ["## Withdrawal", " ".join(lines), "What cannot be undone:", undone]


def _figures(metrics: Results) -> str:
    if not metrics:
        return "No labels were there to compare with."
    return (
        f"UAR {percent(metrics.get('uar'))} % on {metrics.get('scored')} labelled utterances, "
        f"{percent(metrics.get('source_uar'))} % before the adaptation; WAR {percent(metrics.get('war'))} %, "
        f"macro-F1 {percent(metrics.get('macro_f1'))} %."
    )


def _plain(value: object) -> str:
    """One line that cannot become markup: names of corpora and sites come from outside."""
    line = " ".join(str(value).split())[:300]
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in line)
