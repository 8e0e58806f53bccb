"""``summary.md``: headlines with both protocols, means over the pairs, the guard, and a table for each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedser.evaluate.bench.guard_table import guard_tables
from fedser.evaluate.bench.headlines import headlines
from fedser.evaluate.bench.store import Counts, Key
from fedser.evaluate.bench.tables import (
    ORACLE,
    Row,
    by_seed,
    header,
    line,
    mean,
    names,
    pick,
    settings,
    several,
)

SETTING = ("features", "target_set", "protocol")


@dataclass(frozen=True)
class Summary:
    """Markdown tables, and the mean UAR in percent by ``features/target_set/protocol/normalisation/method``.

    Means over pairs with several sources stand under the same names after ``several/``.
    """

    markdown: str
    uar: dict[str, float]


def summarise(
    rows: Sequence[Row],
    counts: Mapping[Key, Counts] | None = None,
    *,
    reference: str = "fedser",
    resamples: int = 2000,
    left_out: Sequence[str] = (),
) -> Summary:
    """All tables of a benchmark.

    Args:
        rows: of the results.
        counts: behind the rows; without them nothing is tested.
        reference: the method whose differences to the others are tested.
        resamples: of the bootstrap.
        left_out: what the results lack, in words.
    """
    text = ["# Benchmark", "", "Percent, mean ± standard deviation over seeds; the best of a row or column in bold."]
    text += _notes(rows, reference)
    text += ["", "Left out:", "", *(f"- {note}" for note in left_out)] if left_out else []
    scored = [row for row in rows if row["uar"]]
    overall: dict[str, float] = {}
    for plural in (False, True):
        part = [row for row in scored if several(row) is plural]
        if part:
            title = ", several source corpora" if plural else ""
            text += ["", f"## Headlines{title}", *headlines(part, counts or {}, reference, resamples, title)]
            text += _overview(part, title)
            overall |= {("several/" if plural else "") + name: value for name, value in _means(part).items()}
    text += guard_tables(rows)
    for plural in (False, True):
        part = [row for row in scored if several(row) is plural]
        text += _settings(part, ", several source corpora" if plural else "")
    return Summary("\n".join(text) + "\n", overall)


def _notes(rows: Sequence[Row], reference: str) -> list[str]:
    methods = names(rows, "method")
    if reference in methods:
        told = f"`{reference} − method`: difference of the mean UAR over the pairs, 95 % interval and p-value (Holm)"
        text = ["", f"{told} of a paired bootstrap over the targets' speakers and the seeds."]
    else:
        text = ["", f"Nothing is tested: there is no row of `{reference}`."]
    if ORACLE in methods:
        text += ["", f"`{ORACLE}` is an oracle: it trains on the target's own labels, leaving one speaker out."]
    return text


def _overview(rows: Sequence[Row], title: str) -> list[str]:
    rules = names(rows, "normalisation")
    text = []
    for metric in ("uar", "war"):
        text += ["", f"## {metric.upper()}, mean over the pairs{title}", ""]
        text += header(["features", "target set", "protocol", "method", *rules])
        for setting in settings(rows, *SETTING):
            part = _pick(rows, setting)
            for method in names(part, "method"):
                values = {rule: by_seed(pick(part, normalisation=rule), method, metric) for rule in rules}
                alone = math.inf if len(rules) == 1 else None  # one column has no best
                text.append(line([*setting, method], values, best=alone))
    return text


def _means(rows: Sequence[Row]) -> dict[str, float]:
    found = {}
    for *setting, rule in settings(rows, *SETTING, "normalisation"):
        part = pick(_pick(rows, tuple(setting)), normalisation=rule)
        for method in names(part, "method"):
            if values := by_seed(part, method, "uar"):
                found["/".join((*setting, rule, method))] = round(mean(values), 2)
    return found


def _settings(rows: Sequence[Row], title: str) -> list[str]:
    text = []
    for *setting, rule in settings(rows, *SETTING, "normalisation"):
        part = pick(_pick(rows, tuple(setting)), normalisation=rule)
        for metric in ("uar", "war"):
            text += ["", f"## {metric.upper()}: {', '.join(setting)}, normalisation {rule}{title}", ""]
            text += _pairs(part, metric)
        text += ["", *_costs(part)]
    return text


def _pairs(rows: Sequence[Row], metric: str) -> list[str]:
    """A line for each pair and one for the mean over pairs, a column for each method."""
    methods = names(rows, "method")
    lines = header(["pair", *methods])
    for source, target in settings(rows, "source", "target"):
        own = pick(rows, source=source, target=target)
        values = {method: [100 * float(row[metric]) for row in own if row["method"] == method] for method in methods}
        lines.append(line([f"{source} → {target}"], values))
    return [*lines, line(["**mean**"], {method: by_seed(rows, method, metric) for method in methods})]


def _costs(rows: Sequence[Row]) -> list[str]:
    """Calibration, unknown emotions and time of each method, over all cells."""
    methods = names(rows, "method")
    told = [("calibration error (ECE)", "ece", 3), ("AUROC of unknown", "unknown_auroc", 3), ("seconds", "seconds", 2)]
    lines = header(["mean of the cells", *methods])
    for label, column, digits in told:
        values = [[float(row[column]) for row in pick(rows, method=m) if row.get(column)] for m in methods]
        if any(values):
            cells = [f"{mean(own):.{digits}f}" if own else "–" for own in values]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return lines


def _pick(rows: Sequence[Row], setting: Sequence[str]) -> list[Row]:
    return pick(rows, **dict(zip(SETTING, setting, strict=True)))
