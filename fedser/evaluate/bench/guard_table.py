"""Does the guard keep its promises? Never much below the source, and most of what there is to gain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedser.adapt.guard import CANDIDATES
from fedser.evaluate.bench.contest import GUARD
from fedser.evaluate.bench.tables import Row, header, mean, settings

RUN = ("source", "target", "features", "normalisation", "protocol", "target_set", "seed")
POINT = 1.0  # of UAR below the source counts as harm


@dataclass(frozen=True)
class Promise:
    """A policy over some runs.

    Attributes:
        runs: how many.
        uar: mean, in percent.
        safe: share of the runs at most one point below the source.
        worst: the lowest difference to the source, in points.
        kept: Σ (policy − source) / Σ max(0, best candidate − source); None where there was nothing to gain.
    """

    runs: int
    uar: float
    safe: float
    worst: float
    kept: float | None


def promise(runs: Sequence[dict[str, float]], policy: str) -> Promise:
    """Judge one policy.

    Args:
        runs: UAR in percent by method; each has the source, the policy and the candidates.
        policy: the method that is always used; ``guard`` or a candidate.
    """
    gains = [run[policy] - run["source"] for run in runs]
    possible = sum(max(run[name] for name in CANDIDATES if name in run) - run["source"] for run in runs)
    return Promise(
        len(runs),
        mean(run[policy] for run in runs),
        mean(float(gain >= -POINT - 1e-9) for gain in gains),
        min(gains),
        sum(gains) / possible if possible > 0 else None,
    )


def harmful(row: Row) -> bool:
    """Whether a run belongs to the harm set: a hard target set, or the normalisation ``corpus``."""
    return row["target_set"] != "all" or row["normalisation"] == "corpus"


def guard_tables(rows: Sequence[Row]) -> list[str]:
    """The guard beside always and never adapting, for ordinary runs, the harm set, and each of their settings."""
    if not any(row["method"] == GUARD for row in rows):
        return []
    text = ["", "## Guard", "", *_EXPLAINED, ""]
    text += header(["runs of", "policy", "runs", "UAR", "≥ source − 1", "worst", "gain kept"])
    scored = [row for row in rows if row["uar"]]
    for title, part in _parts(scored):
        runs = _runs(part)
        if runs:
            policies = [GUARD, *(name for name in CANDIDATES if all(name in run for run in runs))]
            text += [_line(title, name, promise(runs, name)) for name in policies]
    return text + _choices(rows)


_EXPLAINED = (
    "`guard` picks one of the candidates for each adaptation, without labels. Beside it: the source model always",
    "(never adapt), and each candidate always. Columns: share of runs at most one point below the source; the lowest",
    "difference to it; Σ (policy − source) over Σ max(0, best candidate − source).",
)


def _parts(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    yield "**ordinary**", [row for row in rows if not harmful(row)]
    yield "**harm set**", [row for row in rows if harmful(row)]
    columns = ("features", "target_set", "normalisation", "protocol")
    for names in settings(rows, *columns):
        yield ", ".join(names), [row for row in rows if tuple(row[column] for column in columns) == names]


def _runs(rows: Iterable[Row]) -> list[dict[str, float]]:
    found: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in RUN), {})[row["method"]] = 100 * float(row["uar"])
    return [run for run in found.values() if GUARD in run and "source" in run]


def _line(title: str, name: str, own: Promise) -> str:
    told = {GUARD: "guard", "source": "never adapt"}.get(name, f"always {name}")
    kept = "–" if own.kept is None else f"{100 * own.kept:.0f} %"
    return f"| {title} | {told} | {own.runs} | {own.uar:.1f} | {100 * own.safe:.1f} % | {own.worst:+.1f} | {kept} |"


def _choices(rows: Sequence[Row]) -> list[str]:
    """How often each candidate was chosen, by features, target set, normalisation and protocol."""
    columns = ("features", "target_set", "normalisation", "protocol")
    own = [row for row in rows if row["method"] == GUARD]
    text = ["", "What it chose, in percent of the adaptations:", ""]
    text += header(["features", "target set", "normalisation", "protocol", *CANDIDATES])
    for names in settings(own, *columns):
        part = [row for row in own if tuple(row[column] for column in columns) == names]
        counts = Counter(name for row in part for name in row["chosen_by_guard"].split("|"))
        total = sum(counts.values())
        text.append("| " + " | ".join([*names, *(f"{100 * counts[name] / total:.0f}" for name in CANDIDATES)]) + " |")
    return text
