"""Options that several commands take, and how they are read."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

DEFAULT_STATE = Path("fedser-site")

State = Annotated[Path, typer.Option("--state", metavar="DIR", help="The site's state folder, for its owner alone.")]
Patience = Annotated[
    float | None,
    typer.Option("--patience", min=0, metavar="SECONDS", help="Give up when the provider is away this long."),
]
Once = Annotated[bool, typer.Option("--once", help="Answer one order, then stop; 'run' goes on.")]


def command() -> str:
    """The command line, for the report; the program's name without its folder."""
    return shlex.join(["fedser-client", *sys.argv[1:]])


def without(command: str, name: str) -> str:
    """A command line without a name that is nobody's business, for the report."""
    return shlex.join(word.replace(name, "NAME") if name in word else word for word in shlex.split(command))


def text(result: dict[str, Any]) -> str:
    """Where things lie at the end of ``join`` or ``run``."""
    if result["kind"] == "waiting":
        return f"one order was answered; go on with: fedser-client run --state {shlex.quote(result['state'])}"
    metrics = result.get("metrics")
    lines = [f"{result['site']} in {result['study']}: {result['utterances']} utterances, method {result['method']}"]
    if metrics:
        lines.append(
            f"UAR {metrics['uar']:.1f} % on {metrics['scored']} labelled utterances "
            f"(source model: {metrics['source_uar']:.1f} %)"
        )
    lines += [f"{name}: {result[name]}" for name in ("model", "predictions", "report", "card", "audit")]
    return "\n".join(lines)
