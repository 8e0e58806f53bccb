"""``fedser-server status``: the round, who answered, and what was refused."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, StateFolder

if TYPE_CHECKING:
    from rich.console import Group

_REFUSALS = 5  # of the last ones that are shown


def status(
    state: StateFolder = DEFAULT_STATE,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew every second until Ctrl-C.")] = False,
    form: Form = console.Format.text,
) -> None:
    """Show where the study stands: round, sites, seconds, bytes, refusals."""
    if not watch:
        found = _found(state)
        console.emit(found, form, lambda: _plain(found))
        return
    from rich.live import Live

    with Live(_table(_found(state)), refresh_per_second=2) as live:
        while True:
            time.sleep(1)
            live.update(_table(_found(state)))


def _found(state: Any) -> dict[str, Any]:  # noqa: ANN401 - a path
    from fedser_server import journal
    from fedser_server.state import State

    opened = State.open(state, create=False)
    told = journal.status(state)
    refused = [e for e in journal.tail(state, 400) if e.get("event") in ("refused", "no update", "enrolment refused")]
    running = opened.running
    return {
        "study": opened.study,
        "running": running,
        "phase": told.get("phase", "new") if running else _ended(told),
        "round": told.get("round", 0),
        "rounds": told.get("rounds"),
        "why": told.get("why"),
        "sites": [_site(name, entry.status, told) for name, entry in opened.roster.entries().items()],
        "refusals": refused[-_REFUSALS:],
    }


def _ended(told: dict[str, Any]) -> str:
    """The phase of a node that does not run: a crash leaves the phase in which it happened."""
    phase = str(told.get("phase", "new"))
    return phase if phase in ("done", "failed", "new", "stopped") else f"interrupted ({phase})"


def _site(name: str, status: str, told: dict[str, Any]) -> dict[str, Any]:
    answer = told.get("answers", {}).get(name, {})
    return {
        "site": name,
        "status": status,
        "online": name in told.get("online", ()),
        "answered": "refused" not in answer and bool(answer),
        "seconds": answer.get("seconds"),
        "bytes": answer.get("bytes"),
        "refused": answer.get("refused"),
        "finished": name in told.get("finished", ()),
    }


def _rows(found: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("site", "status", "answer", "seconds", "bytes")]
    for site in found["sites"]:
        answer = site["refused"] or ("yes" if site["answered"] else "has the last model" if site["finished"] else "-")
        seconds = "-" if site["seconds"] is None else f"{site['seconds']:.1f}"
        rows.append((site["site"], site["status"], answer, seconds, str(site["bytes"] or "-")))
    return rows


def _head(found: dict[str, Any]) -> str:
    where = f"process {found['running']}" if found["running"] else "not running"
    rounds = f"round {found['round']} of {found['rounds']}" if found["rounds"] else "no rounds yet"
    why = f": {found['why']}" if found["why"] and found["phase"] in ("stopped", "failed") else ""
    return f"study {found['study']}, {found['phase']}{why}, {rounds}, {where}"


def _refusal(event: dict[str, Any]) -> str:
    moment = time.strftime("%H:%M:%S", time.gmtime(float(event.get("time", 0))))
    return f"{moment}  {event.get('site') or event.get('peer') or '?'}: {event.get('why')}"


def _plain(found: dict[str, Any]) -> str:
    rows = _rows(found)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    refusals = ["last refusals (UTC):", *map(_refusal, found["refusals"])] if found["refusals"] else []
    return "\n".join([_head(found), *lines, *refusals])


def _table(found: dict[str, Any]) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(*_rows(found)[0])
    for row in _rows(found)[1:]:
        table.add_row(*row)
    return Group(Text(_head(found)), table, *(Text(_refusal(event)) for event in found["refusals"]))
