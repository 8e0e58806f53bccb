"""``fedser-client status``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedser import console
from fedser_client.commands import options


def status(
    state: options.State = options.DEFAULT_STATE,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Show what the site is doing, and what it answered so far."""
    from fedser_client.state import SiteFolder

    folder = SiteFolder.open(state)
    settings, told, pid = folder.settings(), folder.status(), folder.holder()
    result = {
        "study": settings.study,
        "site": settings.site,
        "provider": settings.address,
        "enrolled": settings.enrolled,
        "finished": settings.finished,
        "running": pid,
        "phase": told.get("phase", "joined") if pid else ("finished" if settings.finished else "stopped"),
        "round": min(told.get("round", 0), settings.rounds or 0),
        "rounds": settings.rounds,
        **{name: told.get(name, 0) for name in ("orders", "refusals", "bytes")},
        "last": told.get("last"),
        "data": str(settings.data),
        "state": str(state),
    }
    console.emit(result, form, lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    from fedser.evaluate.view_left import moment, size

    running = f"process {result['running']}" if result["running"] else "not running"
    lines = [
        f"{result['site']} in {result['study']}, provider {result['provider']}: {result['phase']} ({running})",
        f"round {result['round']} of {'?' if result['rounds'] is None else result['rounds']}; "
        f"{result['orders']} orders answered, {result['refusals']} refused, {size(result['bytes'])} left this site",
    ]
    last = result["last"]
    if isinstance(last, dict):
        lines.append(f"last: {last.get('event')} at {moment(last.get('time'))} UTC")
    if not result["enrolled"]:
        lines.append("not enrolled yet")
    return "\n".join(lines)
