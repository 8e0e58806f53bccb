"""``summary.md`` of ``fedser bench --federated``: what joining brings, by partition and by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fedser.evaluate.bench.bootstrap import Cells, Difference, differences
from fedser.evaluate.bench.store import Counts, Key, key_of
from fedser.evaluate.bench.summary import Summary
from fedser.evaluate.bench.tables import Row, header, line, mean, names, pick, settings

COMPARED = (("personal", "alone"), ("federated", "alone"), ("personal", "pooled"), ("newcomer", "source"))
GROUP = ("features", "normalisation", "method")


def summarise(
    rows: Sequence[Row], counts: Mapping[Key, Counts], *, resamples: int = 2000, left_out: Sequence[str] = ()
) -> Summary:
    """All tables, and the mean UAR in percent by ``features/normalisation/method/partition/setting``.

    Args:
        rows: of the results.
        counts: behind the rows.
        resamples: of the bootstrap.
        left_out: what the results lack, in words.
    """
    text = ["# Federated benchmark", "", "UAR in percent, mean ± standard deviation over seeds; best of a row in bold."]
    text += ["", "All settings make the same local steps. Differences with 95 % interval and p-value of a paired"]
    text += ["bootstrap over the target's speakers and the seeds."]
    text += ["", "Left out:", "", *(f"- {note}" for note in left_out)] if left_out else []
    overall: dict[str, float] = {}
    for group in settings(rows, *GROUP):
        part = pick(rows, **dict(zip(GROUP, group, strict=True)))
        text += ["", f"## {', '.join(group)}", "", *_partitions(part)]
        text += ["", *_differences(part, counts, resamples)]
        text += ["", *_pairs(part)]
        for partition, own in _parts(part):
            for setting in names(part, "setting"):
                if values := _by_seed(own, setting):
                    overall["/".join((*group, partition, setting))] = round(mean(values), 2)
    return Summary("\n".join(text) + "\n", overall)


def _parts(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Each partition's rows; all of them together where there are several."""
    found = [(name, pick(rows, partition=name)) for name in names(rows, "partition")]
    return [*found, ("all", list(rows))] if len(found) > 1 else found


def _partitions(rows: Sequence[Row]) -> list[str]:
    columns = names(rows, "setting")
    lines = header(["partition, mean over the pairs", *columns])
    return lines + [line([name], {c: _by_seed(part, c) for c in columns}) for name, part in _parts(rows)]


def _differences(rows: Sequence[Row], counts: Mapping[Key, Counts], resamples: int) -> list[str]:
    compared = [pair for pair in COMPARED if set(pair) <= set(names(rows, "setting"))]
    if not compared:
        return []
    lines = header(["partition", *(f"{ours} − {theirs}" for ours, theirs in compared), "personal − max(alone, pooled)"])
    for name, part in _parts(rows):
        cells: Cells = {
            ((f"{row['source']} {row['partition']}", row["target"]), row["seed"], row["setting"]): counts[key_of(row)]
            for row in part
        }
        told = [_told(differences(cells, ours, [theirs], resamples=resamples).get(theirs)) for ours, theirs in compared]
        lines.append("| " + " | ".join([name, *told, _to_beat(part)]) + " |")
    return lines


def _pairs(rows: Sequence[Row]) -> list[str]:
    columns = names(rows, "setting")
    lines = header(["pair", "partition", *columns, "personal − alone", "personal − max(alone, pooled)"])
    for source, target in settings(rows, "source", "target"):
        own = pick(rows, source=source, target=target)
        for name, part in _parts(own):
            values = {column: _by_seed(part, column) for column in columns}
            gap = "–"
            if values.get("personal") and values.get("alone"):
                gap = f"{mean(values['personal']) - mean(values['alone']):+.1f}"
            told = line([f"{source} → {target}", name], values)
            lines.append(f"{told} {gap} | {_to_beat(part)} |")
    return lines


def _to_beat(rows: Sequence[Row]) -> str:
    """What joining brings beyond the better of the two other ways, on the mean."""
    own, *others = (_by_seed(rows, setting) for setting in ("personal", "alone", "pooled"))
    return f"{mean(own) - max(map(mean, others)):+.1f}" if own and all(others) else "–"


def _told(gap: Difference | None) -> str:
    return "–" if gap is None else f"{gap.mean:+.1f} [{gap.low:+.1f}, {gap.high:+.1f}], p {gap.p:.3f}"


def _by_seed(rows: Sequence[Row], setting: str) -> list[float]:
    """Mean over pairs and partitions, in percent, for each seed that has them all."""
    wanted = len(settings(rows, "source", "target", "partition"))
    values = []
    for seed in names(rows, "seed"):
        one = [100 * float(row["uar"]) for row in pick(rows, seed=seed, setting=setting)]
        if wanted and len(one) == wanted:
            values.append(mean(one))
    return values
