"""``fedser doctor``: is this machine ready, and if not, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from fedser import console

if TYPE_CHECKING:
    from fedser.commands.checks import Check


def doctor(
    form: Annotated[console.Format, typer.Option("--format", help="How to print the result.")] = console.Format.text,
) -> None:
    """Check this machine before work: check, finding, fix. The exit code is 1 where there is a problem."""
    from fedser.commands.checks import Status, run_all

    checks = run_all()
    healthy = all(check.status is not Status.problem for check in checks)
    rows = [
        {"check": check.name, "status": check.status.value, "found": check.found, "fix": check.fix} for check in checks
    ]
    console.emit({"ok": healthy, "checks": rows}, form, lambda: _table(checks))
    if not healthy:
        raise typer.Exit(1)


def _table(checks: Sequence[Check]) -> str:
    """One line a check, its fix below it, a verdict at the end."""
    lines = []
    for check in checks:
        lines.append(f"{check.status.value:<8} {check.name:<15} {check.found}")
        if check.fix:
            lines.append(f"{'':<8} {'':<15} → {check.fix}")
    problems = sum(check.status.value == "problem" for check in checks)
    verdict = "This machine is ready." if not problems else f"{problems} to mend before work."
    return "\n".join([*lines, "", verdict])
