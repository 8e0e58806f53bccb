"""The lab's tables: ``results.json`` and ``.csv``, ``summary.md``, and a page that opens offline."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedser.evaluate.pages import Block, Listing, Page, Section, Table, about
from fedser.evaluate.report import render
from fedser.files import write_text

TITLES = {
    "gender": "Gender of a site's speakers, from its updates",
    "speaker": "Which known speaker is at a site, from its updates",
    "membership": "Whether an utterance was at a site, from its updates",
    "bundle": "Whether an utterance trained the published model",
    "imprint": "Inputs read out of an update through crafted layers",
    "audit": "The claimed ε, held against canaries",
}
SETTINGS = {"none": "no defence", "default": "default policy", "private": "private policy"}
_CAUTIONS = (
    "An attack that fails here may succeed in better hands: these figures are lower bounds of what can be learnt. A "
    "guarantee is the ε of the policy, and nothing else.",
    "Without differential privacy updates can reveal inputs, membership, speakers, gender and emotion.",
    "A hostile provider also chooses the model: here, unless the configuration says otherwise, the published one has "
    "no dropout, and the orders ask for flat answers, whose updates tell more.",
)
_CAPTION = "In bold what a control has to reach or a bar judges."
_COLUMNS = ("setting", "the attacker looks at", "measure", "value", "95 % interval", "chance", "of", "limit", "kept")
_FIELDS = (
    *("attack", "setting", "where", "measure", "value", "low", "high", "chance", "n"),
    *("role", "limit", "judge", "kept"),
)


def write(out: Path, results: Mapping[str, Any]) -> dict[str, str]:
    """Write all four files; returns the paths of ``summary`` and ``report``.

    Raises:
        OutputError: the folder cannot be written.
    """
    write_text(out / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    text = io.StringIO()
    table = csv.DictWriter(text, _FIELDS, lineterminator="\n")
    table.writeheader()
    table.writerows(results["findings"])
    write_text(out / "results.csv", text.getvalue())
    write_text(out / "summary.md", markdown(results))
    write_text(out / "report.html", render(page(results)))
    return {"summary": str(out / "summary.md"), "report": str(out / "report.html")}


def markdown(results: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    lines = [f"# {_escaped(str(results['name']))}", "", _lead(results), ""]
    lines += [f"- {sentence}" for sentence in verdict(results)] + [""]
    for attack, rows in _by_attack(results):
        lines += [f"## {TITLES[attack]}", "", f"| {' | '.join(_COLUMNS)} |", "|" + "---|" * len(_COLUMNS)]
        lines += [f"| {' | '.join(map(_escaped, cells(row)))} |" for row in rows] + [""]
    lines += [f"- {caution}" for caution in _CAUTIONS]
    lines += ["", f"`{results['command']}` · fedser {results['versions']['fedser']} · seed {results['seed']}"]
    return "\n".join(lines) + "\n"


def page(results: Mapping[str, Any]) -> Page:
    """The tables as a page."""
    sections = []
    for attack, rows in _by_attack(results):
        judged = [(number, _COLUMNS.index("value")) for number, row in enumerate(rows) if row["kept"] is not None]
        table = Table(_CAPTION, _COLUMNS, [cells(row) for row in rows], prose=True, best=judged)
        blocks: list[Block] = [table]
        sections.append(Section(TITLES[attack], blocks=blocks))
    return Page(
        title=str(results["name"]),
        kind="fedser attack",
        lead=[_lead(results), *verdict(results)],
        sections=[
            *sections,
            Section("What these figures mean, and what they do not", blocks=[Listing(_CAUTIONS)]),
            *about({**results, "seeds": [results["seed"]]}),
        ],
    )


def verdict(results: Mapping[str, Any]) -> list[str]:
    """Whether the run proves anything, and whether the bars are kept."""
    failed, over = results["controls_failed"], results["bars_missed"]
    judged = [row for row in results["findings"] if row["role"] == "bar"]
    told = [f"Control failed, so this proves nothing: {sentence}." for sentence in failed]
    if not failed:
        told.append("Every control succeeded: what is undefended was read.")
    told += [f"Bar missed: {sentence}." for sentence in over]
    if judged and not over:
        told.append(f"All {len(judged)} bars are kept.")
    if lenient := sum(bool(row["kept"]) and row["value"] > row["limit"] for row in judged):
        told.append(
            f"{lenient} of the bars only by the low end of an interval: the value itself is above the limit, and so "
            "few sites cannot tell. A run of more sites with bars.judge=value does."
        )
    if not judged:
        told.append("No setting was held against a bar.")
    return told


def cells(row: Mapping[str, Any]) -> list[str]:
    """One finding as a table's row."""
    rate = row["measure"] == "UAR" or row["measure"].startswith("TPR")
    spread = "" if row["low"] is None else f"{_bare(row['low'], rate)}–{_shown(row['high'], rate)}"
    limit = ""
    if row["limit"] is not None:
        limit = f"{'≥' if row['role'] == 'control' else '≤'} {_shown(row['limit'], rate)}"
        limit += " (low end)" if row["role"] == "bar" and row["judge"] == "low" and rate else ""
    kept = {True: "yes", False: "no", None: ""}[row["kept"]]
    setting = SETTINGS.get(row["setting"], row["setting"])
    value, chance = _shown(row["value"], rate), _shown(row["chance"], rate)
    return [setting, row["where"], row["measure"], value, spread, chance, str(row["n"]), limit, kept]


def _by_attack(results: Mapping[str, Any]) -> list[tuple[str, Sequence[Mapping[str, Any]]]]:
    rows = results["findings"]
    return [
        (name, [r for r in rows if r["attack"] == name]) for name in TITLES if any(r["attack"] == name for r in rows)
    ]


def _lead(results: Mapping[str, Any]) -> str:
    data = results["data"]
    return (
        f"{data['speakers']} speakers with {data['utterances']} utterances, half of the speakers the attacker's; "
        f"bundle {_escaped(str(data['bundle']))}; {results['seconds']} s."
    )


def _shown(value: float, rate: bool) -> str:
    return _bare(value, rate) + " %" * rate


def _bare(value: float, rate: bool) -> str:
    return f"{100 * value:.1f}" if rate else f"{value:.4g}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
