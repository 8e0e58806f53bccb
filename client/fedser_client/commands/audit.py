"""``fedser-client audit``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedser import console
from fedser_client.commands import options


def audit(
    state: options.State = options.DEFAULT_STATE,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Verify the chain of the audit log, and print what left, when, how many bytes, and under which order."""
    from fedser.evaluate.view_left import totals
    from fedser.federation.audit import read
    from fedser.privacy.chain import START
    from fedser_client.state import SiteFolder

    folder = SiteFolder.open(state)
    path = folder.file("audit.jsonl")
    records = list(read(path)) if path.exists() else []
    head = records[-1]["hash"] if records else START
    result = {"records": records, **totals(records), "head": head, "whole": True}
    console.emit(result, form, lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    from fedser.evaluate.view_left import moment, size

    lines = [f"{'time (UTC)':<20} {'event':<12} {'round':>5} {'bytes':>12} {'norm':>9}  order"]
    for record in result["records"]:
        norm = record.get("norm")
        lines.append(
            f"{moment(record.get('time')):<20} {record.get('event', ''):<12} {record.get('round', ''):>5} "
            f"{record.get('bytes', ''):>12} {'' if norm is None else format(norm, '.4g'):>9}  "
            f"{(record.get('order') or '')[:16]} {record.get('code', '')}".rstrip()
        )
    refused = sum(result["refused"].values())
    return "\n".join(
        [
            *lines,
            f"{result['orders']} orders answered, {refused} refused, {size(result['bytes'])} left this site",
            f"the chain is whole; its last hash is {result['head']}",
        ]
    )
