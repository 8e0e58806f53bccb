"""The ``fedser-client`` command: the data holder's node."""

from __future__ import annotations

from typing import Annotated

import typer

from fedser.commands import entry
from fedser_client.commands import audit, join, run, status

app = typer.Typer(
    help="The data holder's node: adapt a provider's model to recordings that never leave this site.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fedser import __version__

        typer.echo(f"fedser-client {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The data holder's node: adapt a provider's model to recordings that never leave this site."""


app.command("join")(join.join)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("audit")(audit.audit)


def main() -> None:
    """Run the command line; exit with the code of the error, without a traceback."""
    entry.run(app)


if __name__ == "__main__":
    main()
