"""``fedser-client fingerprint``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedser import console
from fedser_client.commands import options


def fingerprint(
    state: options.State = options.DEFAULT_STATE,
    peer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare with what the policy holds of this peer.")
    ] = None,
    told: Annotated[
        str | None, typer.Option("--told", metavar="DIGITS", help="The peer's fingerprint, as the peer told you.")
    ] = None,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Show the fingerprint of this site's signing key, or compare a peer's with the policy; read both out by phone."""
    from fedser.bundle.keys import fingerprint as of
    from fedser.errors import PolicyError, UsageError
    from fedser_client import policies
    from fedser_client.keys import reply_key
    from fedser_client.state import SiteFolder

    if (peer is None) != (told is None):
        raise UsageError("A comparison needs the peer's name and what it told.", "Give --peer NAME --told DIGITS.")
    folder = SiteFolder.open(state)
    settings = folder.settings()
    own = of(reply_key(folder).public_hex)
    if peer is None or told is None:
        console.emit({"site": settings.site, "fingerprint": own}, form, lambda: f"{settings.site}  {grouped(own)}")
        return
    heard = "".join(told.split()).lower()
    known = policies.read(policies.place(folder, settings.policy)).privacy.masking.peers.get(peer)
    if known is None or known != heard:
        what = "names no fingerprint of" if known is None else "holds another fingerprint of"
        raise PolicyError(
            f"The policy {what} {peer:.80}.", "Ask the peer again, by a way that the provider does not carry."
        )
    result: dict[str, Any] = {"peer": peer, "fingerprint": known, "equal": True}
    console.emit(result, form, lambda: f"{peer}  {grouped(known)}: the policy holds the same")


def grouped(digits: str) -> str:
    """A fingerprint for reading aloud: 16 groups of 4 digits."""
    return " ".join(digits[start : start + 4] for start in range(0, len(digits), 4))
