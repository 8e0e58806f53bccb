"""The ``fedser-client`` command: the data holder's node."""

from __future__ import annotations

from fedser.commands import entry
from fedser_client.commands import audit, fingerprint, join, leave, run, status

app = entry.program(
    "fedser-client", "The data holder's node: adapt a provider's model to recordings that never leave this site."
)

app.command("join")(join.join)
app.command("run")(run.run)
app.command("status")(status.status)
app.command("audit")(audit.audit)
app.command("fingerprint")(fingerprint.fingerprint)
app.command("leave")(leave.leave)


def main() -> None:
    """Run the command line; exit with the code of the error, without a traceback."""
    entry.run(app)


if __name__ == "__main__":
    main()
