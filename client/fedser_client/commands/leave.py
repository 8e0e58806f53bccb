"""``fedser-client leave``."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from fedser import console
from fedser_client.commands import options


def leave(
    state: options.State = options.DEFAULT_STATE,
    speaker: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this speaker withdraws; the site stays.")
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Give up telling a provider that is away this long.")
    ] = 30.0,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Withdraw the site from its study, or one speaker from the site's part in it; says what cannot be undone."""
    from fedser_client import leave as work
    from fedser_client.patience import Patience

    given, command = Patience(patience), options.command()
    if speaker is None:
        result = work.leave(state, patience=given, command=command)
    else:
        result = work.drop(state, speaker, patience=given, command=options.without(command, speaker))
    console.emit(result, form, lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    if result["kind"] == "left":
        told = "the provider knows it" if result["signed_off"] else "the provider never knew it"
        lines = [
            f"{result['site']} has left {result['study']}: it answers no order any more, and {told}",
            f"kept here: the audit log, the privacy ledger and the models; report: {result['report']}",
        ]
    else:
        lines = _speaker(result)
    return "\n".join([*lines, "what cannot be undone:", *(f"  {thing}" for thing in result["undone"])])


def _speaker(result: dict[str, Any]) -> list[str]:
    first, origin = result["first_round"], result["rebuilt_from"]
    lines = ["the speaker is left out from now on; nothing of it left this site"]
    if first is None:
        lines.append("they took part in no round")
    else:
        begin = f"the joint model that round {origin} began with" if origin else "the signed bundle"
        when = "was made anew" if result["rebuilt"] else "will be made at the end"
        count = f"{result['rounds']} round{'' if result['rounds'] == 1 else 's'}"
        lines.append(
            f"they took part in {count}, first in round {first}; the personal model {when} from {begin}, "
            "the last before them"
        )
    if result["features_deleted"]:
        lines.append(f"{result['features_deleted']} cached features of theirs were deleted")
    if result["report"]:
        lines.append(f"report: {result['report']}")
    else:
        lines.append(f"go on with: fedser-client run --state {shlex.quote(result['state'])}")
    return lines
