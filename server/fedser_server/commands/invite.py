"""``fedser-server invite``: a file that lets one site enrol, and tells it whom to trust."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, SiteName, StateFolder

if TYPE_CHECKING:
    from fedser.federation.invitation import Invitation
    from fedser_server.state import State

_Out = Annotated[Path, typer.Option("--out", help="The invitation's file, made for its owner only.")]
_Address = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Where the site reaches the node; the last one by default."),
]
_Days = Annotated[float, typer.Option("--valid-days", min=0.001, max=3650, help="Days until the token expires.")]
_Signer = Annotated[
    str | None,
    typer.Option("--signer", help="The key that signs the bundle: 64 hexadecimal digits or a .pub file."),
]
_Study = Annotated[str | None, typer.Option("--study", help="The study's name, for a new state folder.")]
_Ca = Annotated[
    Path | None, typer.Option("--ca", help="The root of your own certificates, for a node that is started with them.")
]


def invite(
    name: SiteName,
    out: _Out,
    state: StateFolder = DEFAULT_STATE,
    address: _Address = None,
    valid_days: _Days = 7,
    signer: _Signer = None,
    study: _Study = None,
    ca: _Ca = None,
    form: Form = console.Format.text,
) -> None:
    """Invite a site: writes a file with a one-time token. Hand it over on a channel that you both trust."""
    from fedser.errors import OutputError
    from fedser_server.state import State
    from fedser_server.tls import single_certificate

    if out.exists() or out.is_symlink():
        raise OutputError(f"{out} exists already.", "Choose another name: an invitation is never written over.")
    root = single_certificate(ca) if ca is not None else None
    given = _given(signer)
    opened = State.open(state, study=study)
    if root is not None:
        opened.use_ca(root)
    place, key = address or opened.address, given or _known(opened)
    opened.remember(address=place, bundle_key=key)
    opened.certificates()  # good for a new address from now on; a running node takes it up
    token = opened.roster.invite(name, valid_days * 86_400)
    try:
        made = _invitation(opened, name, token, place, key)
        made.write(out)
    except BaseException:
        opened.roster.revoke(name)  # nobody will ever hold this token
        raise
    console.emit(_result(made, out), form, lambda: _text(made, out))


def _given(signer: str | None) -> str | None:
    from fedser.bundle import keys

    return keys.signer(signer) if signer is not None else None


def _known(state: State) -> str | None:
    """The bundle's signer where nobody names one: the last one, else the user's own key, else unknown as yet."""
    from fedser.bundle import keys

    known = state.file.bundle_keys
    if known:
        return known[-1]
    own = keys.public_path(keys.default_path())
    return keys.signer(str(own)) if own.exists() else None


def _invitation(state: State, name: str, token: str, address: str, key: str | None) -> Invitation:
    from fedser.federation.invitation import Invitation
    from fedser_server.tls import sha256

    authority = state.ca
    return Invitation(
        study=state.study,
        site=name,
        address=address,
        ca=authority,
        ca_sha256=sha256(authority),
        bundle_key=key,
        order_key=state.order_key.public_hex,
        token=token,
        expires=state.roster.entries()[name].expires,
    )


def _result(made: Invitation, out: Path) -> dict[str, object]:
    return {"invitation": str(out), **made.model_dump(exclude={"token", "ca", "fedser_invitation"})}


def _text(made: Invitation, out: Path) -> str:
    return "\n".join(
        (
            f"invitation: {out} (for {made.site}; whoever holds it can enrol in that name, once)",
            f"study:      {made.study}",
            f"address:    {made.address}",
            f"authority:  {made.ca_sha256}",
            f"signer:     {made.bundle_key or 'not known yet, the order key will vouch for it; --signer pins one'}",
            f"expires:    {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(made.expires))}",
            f"The site runs: fedser-client join {out.name} --data DIR",
        )
    )
