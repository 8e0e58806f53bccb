"""What left a site, from its audit log: the entry ``left`` of ``results.json``, and its section of the report.

::

    {"study", "site", "policy": path, "privacy": facts, "head": hash of the last record,
     "records": [{"time", "event", "round", "attempt", "bytes", "norm", "utterances", "scalars", "code"}]}
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedser.evaluate.pages import Section, Table, is_number
from fedser.privacy import sentences

_KEPT = ("time", "event", "round", "attempt", "bytes", "norm", "utterances", "scalars", "code", "order")
_SHOWN = 20  # rows that are shown without a click


def summary(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Records of an audit log as plain values for ``results.json``; ``head`` is the last one's hash."""
    kept, head = [], ""
    for record in records:
        kept.append({key: record[key] for key in _KEPT if key in record})
        head = str(record.get("hash", ""))
    return {"records": kept, "head": head, **totals(kept)}


def totals(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many updates and bytes left, and how many orders were refused by code."""
    # A crash between the answer's storing and its record leaves the record of the sending alone.
    sent = [record for record in records if record.get("event") in ("update", "finished", "resent")]
    answered = {(record.get("round"), record.get("attempt")) for record in sent}
    refused = Counter(str(record.get("code")) for record in records if record.get("event") == "refusal")
    return {
        "orders": len(answered),
        "bytes": sum(int(record.get("bytes") or 0) for record in records),
        "refused": dict(refused.most_common()),
    }


def section(results: Mapping[str, Any]) -> Section | None:
    """The report's section; None for an adaptation without a network."""
    left: Mapping[str, Any] = results.get("left") or {}
    if not left:
        return None
    records = list(left.get("records") or [])
    counted = totals(records)
    refused = ", ".join(f"{count} × {code}" for code, count in counted["refused"].items())
    text = [
        f"{counted['orders']} orders were answered and {size(counted['bytes'])} left this site"
        + (f"; refused by policy: {refused}." if refused else "; no order was refused."),
        "No message has a place for recordings, features, pseudo-labels, file names, speakers, normalisation "
        "statistics or the answers of the model.",
        *sentences.sentences(left.get("privacy") or {}),
        *budget(left.get("privacy") or {}),
    ]
    if left.get("policy"):
        text.append(f"The policy that held: {left['policy']}.")
    if left.get("head"):
        text.append(f"Last hash of the audit log's chain, to be kept elsewhere: {left['head']}")
    rows = [_row(record) for record in records]
    columns = ("time (UTC)", "event", "round", "bytes", "norm", "count", "scalars", "code")
    return Section("What left this site", text, [Table("Messages", columns, rows)], folded=len(rows) > _SHOWN)


def budget(told: Mapping[str, Any]) -> list[str]:
    """What was spent, by which accountant; nothing where there is no budget."""
    if not is_number(told.get("spent")):
        return []
    return [
        f"Spent so far: ε = {told['spent']:g} of {told['epsilon']:g} at δ = {told['delta']:g}, left {told['left']:g}; "
        f"accountant: {told['accountant']}."
    ]


def size(count: int) -> str:
    """Bytes for people: ``1.4 MB``."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:.1f} MB"


def moment(seconds: object) -> str:
    """Unix time for people, or a dash."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) if is_number(seconds) else "–"


def _row(record: Mapping[str, Any]) -> list[str]:
    norm = record.get("norm")
    scalars = {True: "yes", False: "no"}.get(record.get("scalars"), "–")  # type: ignore[arg-type]
    return [
        moment(record.get("time")),
        str(record.get("event", "–")),
        *("–" if record.get(key) is None else str(record[key]) for key in ("round", "bytes")),
        f"{norm:.4g}" if is_number(norm) else "–",
        "–" if record.get("utterances") is None else str(record["utterances"]),
        scalars,
        str(record.get("code", "–")),
    ]
