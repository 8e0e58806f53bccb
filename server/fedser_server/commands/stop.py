"""``fedser-server stop``: end the running node, gracefully and then firmly."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Annotated

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, StateFolder


def stop(
    state: StateFolder = DEFAULT_STATE,
    patience: Annotated[float, typer.Option(min=0, help="Seconds after which the node is killed.")] = 20.0,
    form: Form = console.Format.text,
) -> None:
    """Stop the node that runs on a state folder. The round in flight is taken up by the next start."""
    from fedser.errors import StateError
    from fedser_server.folder import holder

    process = holder(state)
    if process is None:
        raise StateError(f"No node runs on {state}.", "fedser-server status tells what it did last.")
    if process < 0:
        raise StateError(f"The node on {state} has not told its process id.", "Stop it by its service, or by hand.")
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    end = time.monotonic() + patience
    while holder(state) == process and time.monotonic() < end:
        time.sleep(0.1)
    firm = holder(state) == process
    if firm:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    how = "killed" if firm else "stopped"
    console.emit({"process": process, "how": how}, form, lambda: f"the node (process {process}) was {how}")
