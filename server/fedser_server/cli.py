"""The ``fedser-server`` command: assembles the provider's commands."""

from __future__ import annotations

from typing import Annotated

import typer

from fedser.commands import entry
from fedser_server.commands import backup, invite, renew, sites, start, status, stop

app = typer.Typer(
    help="The provider's node: invite sites, publish a source bundle, run rounds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from fedser import __version__

        typer.echo(f"fedser-server {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The provider's node: invite sites, publish a source bundle, run rounds."""


app.command("start")(start.start)
app.command("status")(status.status)
app.command("stop")(stop.stop)
app.command("invite")(invite.invite)
app.command("sites")(sites.sites)
app.command("revoke")(sites.revoke)
app.command("renew")(renew.renew)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)


def main() -> None:
    """Run the command line; exit with the code of the error, without a traceback."""
    entry.run(app)


if __name__ == "__main__":
    main()
