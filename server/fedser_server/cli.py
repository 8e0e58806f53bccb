"""The ``fedser-server`` command: assembles the provider's commands."""

from __future__ import annotations

from fedser.commands import entry
from fedser_server.commands import backup, invite, renew, sites, start, status, stop

app = entry.program("fedser-server", "The provider's node: invite sites, publish a source bundle, run rounds.")

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
