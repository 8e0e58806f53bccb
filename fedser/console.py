"""What a person or a script sees: results, progress, errors.

Results go to stdout, everything else to stderr. With ``--format json`` stdout carries exactly one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from fedser.errors import FedserError


class Format(StrEnum):
    """How a command prints its result."""

    text = "text"
    json = "json"


def emit(result: Mapping[str, Any], form: Format, text: Callable[[], str]) -> None:
    """Print a result: the mapping as one JSON object, or the text (rich markup is not interpreted)."""
    if form is Format.json:
        sys.stdout.write(json.dumps(result, ensure_ascii=False, default=str) + "\n")
    else:
        sys.stdout.write(text().rstrip("\n") + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """Tell something beside the result, on stderr."""
    sys.stderr.write(message.rstrip("\n") + "\n")
    sys.stderr.flush()


def fail(error: FedserError, *, as_json: bool) -> int:
    """Print an error as two sentences (and as JSON where asked) and return its exit code."""
    name = type(error).__name__
    say(f"error: {error}" + (f"\n  what to do: {error.hint}" if error.hint else ""))
    if as_json:
        body = {"name": name, "code": error.exit_code, "message": str(error), "hint": error.hint}
        sys.stdout.write(json.dumps({"error": body}, ensure_ascii=False) + "\n")
    return error.exit_code


Step = Callable[[], None]


@contextmanager
def progress(description: str, total: int) -> Iterator[Step]:
    """Show progress on stderr: a rich bar on a terminal, a plain line at the start and end in a pipe.

    Yields a function to call after each of ``total`` steps.
    """
    if total <= 0:
        yield lambda: None
        return
    if not sys.stderr.isatty():
        say(f"{description}: {total}")
        yield lambda: None
        say(f"{description}: done")
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)
