"""Both protocols beside each other, and the reference against every other method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedser.evaluate.bench.bootstrap import Cells, Difference, differences
from fedser.evaluate.bench.store import Counts, Key, key_of
from fedser.evaluate.bench.tables import ORACLE, Row, by_seed, header, mean, names, pick, settings, spread
from fedser.evaluate.protocols import PROTOCOLS


def headlines(
    rows: Sequence[Row], counts: Mapping[Key, Counts], reference: str, resamples: int, title: str
) -> list[str]:
    """A table for each features × target set × normalisation; methods down, protocols across."""
    text = []
    for features, target_set, rule in settings(rows, "features", "target_set", "normalisation"):
        part = pick(rows, features=features, target_set=target_set, normalisation=rule)
        pairs = len(settings(part, "source", "target"))
        text += ["", f"### {features}, {target_set}, normalisation {rule}{title}", ""]
        text += [f"UAR, mean over {pairs} pair{'s' * (pairs > 1)}.", "", *_table(part, counts, reference, resamples)]
    return text


def _table(rows: Sequence[Row], counts: Mapping[Key, Counts], reference: str, resamples: int) -> list[str]:
    protocols = [protocol for protocol in PROTOCOLS if protocol in names(rows, "protocol")]
    methods = names(rows, "method")
    tested = reference in methods and len(methods) > 1
    heads = ["method"]
    for protocol in protocols:
        heads += [protocol, *([f"{reference} − method", "p (Holm)"] if tested else [])]
    columns = {protocol: _column(pick(rows, protocol=protocol), methods) for protocol in protocols}
    gaps = {
        protocol: _gaps(pick(rows, protocol=protocol), counts, reference, methods, resamples) if tested else {}
        for protocol in protocols
    }
    lines = header(heads)
    for method in methods:
        cells = [f"{method} (oracle)" if method == ORACLE else method]
        for protocol in protocols:
            values, best = columns[protocol]
            own = values[method]
            cells.append(spread(own, bold=bool(own) and method != ORACLE and abs(mean(own) - best) < 0.05))
            if tested:
                cells += _told(gaps[protocol].get(method))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _column(rows: Sequence[Row], methods: Sequence[str]) -> tuple[dict[str, list[float]], float]:
    values = {method: by_seed(rows, method, "uar") for method in methods}
    return values, max((mean(v) for name, v in values.items() if v and name != ORACLE), default=0.0)


def _gaps(
    rows: Sequence[Row], counts: Mapping[Key, Counts], reference: str, methods: Sequence[str], resamples: int
) -> dict[str, Difference]:
    cells: Cells = {
        ((row["source"], row["target"]), row["seed"], row["method"]): counts[key]
        for row in rows
        if (key := key_of(row)) in counts
    }
    others = [method for method in methods if method not in (reference, ORACLE)]
    return differences(cells, reference, others, resamples=resamples)


def _told(gap: Difference | None) -> list[str]:
    if gap is None:
        return ["", ""]
    return [f"{gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}]", f"{gap.holm:.3f}"]
