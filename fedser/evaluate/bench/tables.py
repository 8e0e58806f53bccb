"""Lines of Markdown tables, and the small statistics in them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, str]

ORACLE = "supervised"  # never the best: it is no competitor


def header(names: Sequence[str]) -> list[str]:
    """The head of a table."""
    return ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]


def line(names: Sequence[str], values: Mapping[str, Sequence[float]], best: float | None = None) -> str:
    """One line: names, then mean ± standard deviation of each column, the best in bold.

    Args:
        names: first cells.
        values: percent, by column.
        best: the mean to print in bold; the largest of the line, the oracle apart, when None.
    """
    if best is None:
        best = max((mean(v) for name, v in values.items() if v and name != ORACLE), default=0.0)
    cells = [spread(v, bold=name != ORACLE and bool(v) and abs(mean(v) - best) < 0.05) for name, v in values.items()]
    return "| " + " | ".join([*names, *cells]) + " |"


def spread(values: Sequence[float], *, bold: bool = False) -> str:
    """Mean ± standard deviation; a dash without values."""
    if not values:
        return "–"
    text = f"{mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
    return f"**{text}**" if bold else text


def mean(values: Iterable[float]) -> float:
    """The mean of at least one value."""
    return statistics.fmean(values)


def by_seed(rows: Sequence[Row], method: str, metric: str) -> list[float]:
    """Mean over the pairs, in percent, for each seed that has them all, so that the spread is that of the mean."""
    pairs = {(row["source"], row["target"]) for row in rows}
    values = []
    for seed in names(rows, "seed"):
        one = [100 * float(row[metric]) for row in rows if row["seed"] == seed and row["method"] == method]
        if pairs and len(one) == len(pairs):
            values.append(mean(one))
    return values


def names(rows: Sequence[Row], column: str) -> list[str]:
    """The values of a column, in the order in which they first occur; the oracle last."""
    found = dict.fromkeys(row[column] for row in rows)
    return [name for name in found if name != ORACLE] + [name for name in found if name == ORACLE]


def pick(rows: Sequence[Row], **wanted: str) -> list[Row]:
    """Rows whose columns have these values."""
    return [row for row in rows if all(row[column] == value for column, value in wanted.items())]


def settings(rows: Sequence[Row], *columns: str) -> list[tuple[str, ...]]:
    """The combinations of some columns that occur, sorted."""
    return sorted({tuple(row[column] for column in columns) for row in rows})


def several(row: Row) -> bool:
    """Whether the model comes from several corpora."""
    return "+" in row["source"]
