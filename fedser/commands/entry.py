"""How every command line of the project starts and ends: errors become exit codes, without a traceback."""

from __future__ import annotations

import os
import signal
import sys
from itertools import pairwise
from types import FrameType
from typing import NoReturn

import click
import typer

from fedser import console
from fedser.errors import FedserError, UsageError

INTERRUPTED, TERMINATED = 130, 143  # 128 and the signal's number, as shells count


def program(name: str, about: str) -> typer.Typer:
    """A command line to assemble commands on.

    Args:
        name: of the program, as ``--version`` prints it.
        about: the help's first line.
    """
    app = typer.Typer(
        help=about,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    def show(wanted: bool) -> None:
        if wanted:
            from fedser import __version__

            typer.echo(f"{name} {__version__}")
            raise typer.Exit

    @app.callback(help=about)
    def options(
        version: bool = typer.Option(False, "--version", callback=show, is_eager=True, help="Print the version."),
    ) -> None:
        pass

    return app


def run(app: typer.Typer) -> NoReturn:
    """Run a command line and exit with its code.

    An error is told in two sentences (as one JSON object with ``--format json``). Ctrl-C and SIGTERM both
    unwind the command, so that nothing is left half-written, and exit with 130 and 143.
    """
    as_json = any(
        argument == "--format=json" or (argument == "--format" and following == "json")
        for argument, following in pairwise([*sys.argv[1:], ""])
    )
    ending = _Ending()
    signal.signal(signal.SIGTERM, ending)
    try:
        # click prints its own errors as text and exits; in this mode it raises them, and returns exit codes.
        code = app(standalone_mode=not as_json) or 0
    except FedserError as error:
        code = console.fail(error, as_json=as_json)
    except click.ClickException as error:
        wrong = UsageError(error.format_message(), "The same command with --help lists what it takes.")
        code = console.fail(wrong, as_json=as_json)
    except BrokenPipeError:
        # The reader went away; what is still buffered must not be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:  # between two of the lines above
        code = INTERRUPTED
    if code == INTERRUPTED:  # what typer makes of an interruption, without a word
        console.say("interrupted: nothing was left half-written")
        code = TERMINATED if ending.terminated else code
    sys.exit(code)


class _Ending:
    """Makes SIGTERM, which service managers send, unwind a command as Ctrl-C does."""

    def __init__(self) -> None:
        self.terminated = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked child has no command to unwind
            os._exit(TERMINATED)
        self.terminated = True
        raise KeyboardInterrupt
