"""``fedser-server sites`` and ``revoke``: who was invited, who enrolled, who is shut out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, SiteName, StateFolder

if TYPE_CHECKING:
    from fedser_server.roster import SiteEntry

_COLUMNS = ("site", "status", "invited", "expires", "enrolled", "revoked", "left")


def sites(state: StateFolder = DEFAULT_STATE, form: Form = console.Format.text) -> None:
    """List the sites: invited, expired (invited, but too late now), enrolled, revoked, or left by themselves."""
    from fedser_server.state import State

    opened = State.open(state, create=False)
    rows = [_row(entry) for entry in opened.roster.entries().values()]
    console.emit({"study": opened.study, "sites": rows}, form, lambda: _table(opened.study, rows))


def revoke(name: SiteName, state: StateFolder = DEFAULT_STATE, form: Form = console.Format.text) -> None:
    """Shut a site out: its token and keys are good for nothing any more, at once and for good."""
    from fedser_server.state import State

    entry = State.open(state, create=False).roster.revoke(name)
    what = "has left by itself" if entry.status == "left" else "is revoked"
    text = f"{name} {what}. Its updates of earlier rounds stay in the model; the name can be invited anew."
    console.emit(_row(entry), form, lambda: text)


def _row(entry: SiteEntry) -> dict[str, Any]:
    """What may be shown of an entry: no token's hash, no key."""
    status: str = entry.status
    if status == "invited" and time.time() > entry.expires:
        status = "expired"
    values = entry.model_dump(include={"invited", "expires", "enrolled", "revoked", "left"})
    return {"site": entry.name, "status": status, **values}


def _table(study: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"{study}: no sites yet. Invite one: fedser-server invite NAME --out FILE"
    lines = [_COLUMNS, *(tuple(_cell(row[column]) for column in _COLUMNS) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    shown = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join((f"study {study}, times in UTC", *(line.rstrip() for line in shown)))


def _cell(value: str | int | None) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else time.strftime("%Y-%m-%d %H:%M", time.gmtime(value))
