"""``fedser-client run``."""

from __future__ import annotations

from typing import Annotated

import typer

from fedser import console
from fedser_client.commands import options


def run(
    state: options.State = options.DEFAULT_STATE,
    once: options.Once = False,
    patience: options.Patience = None,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Take up a study that was joined before, wherever it stopped; the state folder knows all that 'join' was told."""
    from fedser_client.join import run as work
    from fedser_client.patience import Patience

    result = work(state, patience=Patience(patience), command=options.command(), once=once)
    console.emit(result, form, lambda: options.text(result))
