"""The report of a benchmark, from its ``results.csv``; the columns stand in :mod:`fedser.evaluate.bench`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedser.evaluate.pages import Block, Listing, Page, Section, Table, about, number_of

Row = Mapping[str, str]

_SECTION = ("features", "target_set", "protocol")
_METRICS = {"uar": "UAR", "war": "WAR", "macro_f1": "macro-F1"}


def view(results: Mapping[str, Any], rows: Sequence[Row]) -> Page:
    """Arrange a benchmark's rows: a section for each features × target set × protocol × partition, UAR first."""
    rows = [row for row in rows if row["uar"]]  # recordings without speech have nothing to score
    seeds = sorted({row["seed"] for row in rows})
    pairs = sorted({(row["source"], row["target"]) for row in rows})
    methods = sorted({_method(row) for row in rows})
    sections = [
        Section(f"{', '.join(names)}", blocks=_tables([row for row in rows if _names(row) == names]))
        for names in sorted({_names(row) for row in rows})
    ]
    cautions = [
        "Transductive figures score a model on the utterances that it adapted to; inductive ones on speakers that "
        "took no part. Compare like with like.",
        "The spread is over seeds of training, not over recordings. The corpora are mostly acted.",
        "Inside this run the target's labels said which emotions and utterances take part, and no model was chosen "
        "by them. Whoever picks a setting by these tables has used them.",
    ]
    return Page(
        title="Benchmark",
        kind="fedser bench",
        lead=[
            f"{number_of(len(methods), 'method')} on {number_of(len(pairs), 'pair')} of corpora, "
            f"{number_of(len(seeds), 'seed')}; {number_of(len(rows), 'cell')}."
        ],
        sections=[
            *sections,
            Section("What these figures mean, and what they do not", blocks=[Listing(cautions)]),
            *about({"seeds": seeds, "config": results.get("settings") or {}, **results}),
        ],
    )


def _names(row: Row) -> tuple[str, ...]:
    return tuple(row[name] for name in _SECTION) + ((row["partition"],) if row.get("partition") else ())


def _method(row: Row) -> str:
    """The method; in a federated benchmark the setting too."""
    setting = row.get("setting", "central")
    return row["method"] if setting == "central" else f"{setting} ({row['method']})"


def _tables(rows: Sequence[Row]) -> list[Block]:
    columns = sorted({(row["normalisation"], _method(row)) for row in rows})
    pairs = sorted({(row["source"], row["target"]) for row in rows})
    blocks: list[Block] = []
    for metric, label in _METRICS.items():
        values = [[_values(rows, pair, column, metric) for column in columns] for pair in pairs]
        values.append([_means(rows, pairs, column, metric) for column in columns])
        headings = [*(f"{source} → {target}" for source, target in pairs), "mean over pairs"]
        body = [[heading, *map(_shown, row)] for heading, row in zip(headings, values, strict=True)]
        best = [(number, _largest(row) + 1) for number, row in enumerate(values) if any(row)]
        names = ("pair", *(f"{method}, {rule}" for rule, method in columns))
        caption = f"{label} in percent, mean ± standard deviation over seeds; best in bold"
        blocks.append(Table(caption, names, body, best=best))
    return blocks


def _values(rows: Iterable[Row], pair: tuple[str, str], column: tuple[str, str], metric: str) -> list[float]:
    return [
        100 * float(row[metric])
        for row in rows
        if (row["source"], row["target"]) == pair and (row["normalisation"], _method(row)) == column
    ]


def _means(rows: Sequence[Row], pairs: Sequence[tuple[str, str]], column: tuple[str, str], metric: str) -> list[float]:
    """The mean over the pairs of each seed that has them all, so that the spread is that of the mean."""
    by_seed: dict[str, list[float]] = {}
    for row in rows:
        if (row["normalisation"], _method(row)) == column:
            by_seed.setdefault(row["seed"], []).append(100 * float(row[metric]))
    return [statistics.fmean(values) for values in by_seed.values() if len(values) == len(pairs)]


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def _largest(values: Sequence[Sequence[float]]) -> int:
    """Which of the cells has the largest mean; at least one has values."""
    return max((statistics.fmean(own), number) for number, own in enumerate(values) if own)[1]
