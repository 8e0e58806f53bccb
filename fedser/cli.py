"""The ``fedser`` command: assembles the command groups and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import Annotated

import click
import typer

from fedser import console
from fedser.commands import adapt, bench, bundle, corpus, demo, doctor, keys, predict, report, segment, simulate, train
from fedser.errors import FedserError, UsageError

app = typer.Typer(
    help="Federated, source-free, privacy-preserving adaptation of speech-emotion models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fedser import __version__

        typer.echo(f"fedser {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated, source-free, privacy-preserving adaptation of speech-emotion models."""


app.command("demo")(demo.demo)
app.add_typer(corpus.app, name="corpus")
app.command("segment")(segment.segment)
app.command("train")(train.train)
app.add_typer(keys.app, name="keys")
app.add_typer(bundle.app, name="bundle")
app.command("adapt")(adapt.adapt)
app.command("predict")(predict.predict)
app.command("simulate")(simulate.simulate)
app.command("bench")(bench.bench)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Run the command line; exit with the code of the error, without a traceback."""
    as_json = any(
        argument == "--format=json" or (argument == "--format" and following == "json")
        for argument, following in pairwise([*sys.argv[1:], ""])
    )
    try:
        # click prints its own errors as text and exits; in this mode it raises them, and returns exit codes.
        sys.exit(app(standalone_mode=not as_json) or 0)
    except FedserError as error:
        sys.exit(console.fail(error, as_json=as_json))
    except click.ClickException as error:
        wrong = UsageError(error.format_message(), "The same command with --help lists what it takes.")
        sys.exit(console.fail(wrong, as_json=as_json))
    except BrokenPipeError:
        # The reader went away; what is still buffered must not be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # what typer makes of Ctrl-C, without a word
            console.say("interrupted: nothing was left half-written")
        raise


if __name__ == "__main__":
    main()
