"""Tables of a benchmark: mean ± standard deviation over seeds, by pair and on the mean over pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]
SETTING = ("features", "target_set", "protocol")


@dataclass(frozen=True)
class Summary:
    """Markdown tables, and the mean UAR in percent by ``features/target_set/protocol/normalisation/method``."""

    markdown: str
    uar: dict[str, float]


def summarise(rows: Sequence[Row]) -> Summary:
    """An overview of the means over pairs, then a table of pairs for each setting and normalisation."""
    text = ["# Benchmark", "", "Percent, mean ± standard deviation over seeds; the best of a row in bold."]
    overall: dict[str, float] = {}
    rules = _names(rows, "normalisation")
    for metric in ("uar", "war"):
        text += ["", f"## {metric.upper()}, mean over the pairs", ""]
        text += _header(["features", "target set", "protocol", "method", *rules])
        for setting in _settings(rows):
            for method in _names(rows, "method"):
                values = {rule: _by_seed(_pick(rows, setting, rule), method, metric) for rule in rules}
                text.append(_line([*setting, method], values))
                if metric == "uar":
                    found = {rule: _mean(v) for rule, v in values.items() if v}
                    overall |= {"/".join((*setting, rule, method)): round(v, 2) for rule, v in found.items()}
    for setting in _settings(rows):
        for rule in rules:
            part = _pick(rows, setting, rule)
            for metric in ("uar", "war"):
                text += ["", f"## {metric.upper()}: {', '.join(setting)}, normalisation {rule}", ""]
                text += _pairs(part, metric)
            text += ["", *_costs(part)]
    return Summary("\n".join(text) + "\n", overall)


def _pairs(rows: Sequence[Row], metric: str) -> list[str]:
    """A line for each pair and one for the mean over pairs, a column for each method."""
    methods = _names(rows, "method")
    lines = _header(["pair", *methods])
    for pair in sorted({(row["source"], row["target"]) for row in rows}):
        own = [row for row in rows if (row["source"], row["target"]) == pair]
        values = {method: [100 * float(row[metric]) for row in own if row["method"] == method] for method in methods}
        lines.append(_line([f"{pair[0]} → {pair[1]}"], values))
    return [*lines, _line(["**mean**"], {method: _by_seed(rows, method, metric) for method in methods})]


def _by_seed(rows: Sequence[Row], method: str, metric: str) -> list[float]:
    """Mean over the pairs for each seed that has them all, so that the spread is that of the mean."""
    pairs = {(row["source"], row["target"]) for row in rows}
    values = []
    for seed in _names(rows, "seed"):
        one = [100 * float(row[metric]) for row in rows if row["seed"] == seed and row["method"] == method]
        if pairs and len(one) == len(pairs):
            values.append(statistics.fmean(one))
    return values


def _costs(rows: Sequence[Row]) -> list[str]:
    methods = _names(rows, "method")
    ece = [statistics.fmean(float(row["ece"]) for row in rows if row["method"] == method) for method in methods]
    seconds = [statistics.fmean(float(row["seconds"]) for row in rows if row["method"] == method) for method in methods]
    return [
        *_header(["mean of the cells", *methods]),
        "| calibration error (ECE) | " + " | ".join(f"{value:.3f}" for value in ece) + " |",
        "| seconds | " + " | ".join(f"{value:.2f}" for value in seconds) + " |",
    ]


def _header(names: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def _line(names: Sequence[str], values: Mapping[str, Sequence[float]]) -> str:
    best = max((_mean(v) for v in values.values() if v), default=0.0)
    return "| " + " | ".join([*names, *(_cell(v, best) for v in values.values())]) + " |"


def _cell(values: Sequence[float], best: float) -> str:
    if not values:
        return "–"
    text = f"{_mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    return f"**{text}**" if abs(_mean(values) - best) < 0.05 else text


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values)


def _pick(rows: Sequence[Row], setting: tuple[str, ...], rule: str) -> list[Row]:
    return [row for row in rows if row["normalisation"] == rule and tuple(row[name] for name in SETTING) == setting]


def _settings(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return sorted({tuple(row[name] for name in SETTING) for row in rows})


def _names(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column, in the order in which they first occur."""
    return list(dict.fromkeys(row[column] for row in rows))
