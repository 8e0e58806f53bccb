"""Tables of a benchmark: mean ± standard deviation over seeds, by pair and on the mean over pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]
SECTION = ("features", "target_set", "protocol")


@dataclass(frozen=True)
class Summary:
    """Markdown tables, and the mean UAR in percent by ``features/target_set/protocol/normalisation/method``."""

    markdown: str
    uar: dict[str, float]


def summarise(rows: Sequence[Row]) -> Summary:
    """Build one section for each features × target set × protocol, with a UAR and a WAR table."""
    text = [
        "# Benchmark",
        "",
        "UAR and WAR in percent, mean ± standard deviation over seeds; best of a pair in bold.",
    ]
    overall: dict[str, float] = {}
    for section in sorted({tuple(row[name] for name in SECTION) for row in rows}):
        part = [row for row in rows if tuple(row[name] for name in SECTION) == section]
        text += ["", f"## {section[0]}, target set {section[1]}, {section[2]}"]
        for metric in ("uar", "war"):
            table, means = _table(part, metric)
            text += ["", f"### {metric.upper()}", "", *table]
            if metric == "uar":
                overall |= {"/".join((*section, *column)): value for column, value in means.items()}
        text += ["", "Mean calibration error (ECE) and seconds a cell:", "", *_costs(part)]
    return Summary("\n".join(text) + "\n", overall)


def _table(rows: Sequence[Row], metric: str) -> tuple[list[str], dict[tuple[str, str], float]]:
    columns = sorted({(row["normalisation"], row["method"]) for row in rows})
    pairs = sorted({(row["source"], row["target"]) for row in rows})
    cells = {(pair, column): _values(rows, pair, column, metric) for pair in pairs for column in columns}
    lines = ["| pair | " + " | ".join(f"{rule} {method}" for rule, method in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    for pair in pairs:
        best = max((_mean(cells[pair, column]) for column in columns), default=0.0)
        shown = [_cell(cells[pair, column], best) for column in columns]
        lines.append(f"| {pair[0]} → {pair[1]} | " + " | ".join(shown) + " |")
    means: dict[tuple[str, str], float] = {}
    spreads = []
    for column in columns:
        by_seed = _by_seed(rows, column, metric, pairs)
        means[column] = round(_mean(by_seed), 2) if by_seed else float("nan")
        spreads.append(_cell(by_seed, None))
    lines.append("| **mean over pairs** | " + " | ".join(spreads) + " |")
    return lines, means


def _values(rows: Sequence[Row], pair: tuple[str, str], column: tuple[str, str], metric: str) -> list[float]:
    return [
        100 * float(row[metric])
        for row in rows
        if (row["source"], row["target"]) == pair and (row["normalisation"], row["method"]) == column
    ]


def _by_seed(
    rows: Sequence[Row], column: tuple[str, str], metric: str, pairs: Sequence[tuple[str, str]]
) -> list[float]:
    """Mean over the pairs for each seed that has them all, so that the spread is that of the mean."""
    values = []
    for seed in sorted({row["seed"] for row in rows}):
        one = [
            100 * float(row[metric])
            for row in rows
            if row["seed"] == seed and (row["normalisation"], row["method"]) == column
        ]
        if len(one) == len(pairs):
            values.append(statistics.fmean(one))
    return values


def _costs(rows: Sequence[Row]) -> list[str]:
    columns = sorted({(row["normalisation"], row["method"]) for row in rows})
    lines = ["| normalisation | method | ECE | seconds |", "|---|---|---|---|"]
    for rule, method in columns:
        own = [row for row in rows if (row["normalisation"], row["method"]) == (rule, method)]
        ece = statistics.fmean(float(row["ece"]) for row in own)
        seconds = statistics.fmean(float(row["seconds"]) for row in own)
        lines.append(f"| {rule} | {method} | {ece:.3f} | {seconds:.2f} |")
    return lines


def _cell(values: Sequence[float], best: float | None) -> str:
    if not values:
        return "–"
    text = f"{_mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    return f"**{text}**" if best is not None and abs(_mean(values) - best) < 0.05 else text


def _mean(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else float("-inf")
