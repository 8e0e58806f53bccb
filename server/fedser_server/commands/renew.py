"""``fedser-server renew``: new keys and certificates, without losing a site."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, StateFolder

if TYPE_CHECKING:
    from fedser_server.state import State


class What(StrEnum):
    """What can be renewed."""

    certificate = "certificate"
    order_key = "order-key"
    ca = "ca"


_What = Annotated[What, typer.Argument(help="The server's certificate, the key that signs orders, or the authority.")]


def renew(what: _What, state: StateFolder = DEFAULT_STATE, form: Form = console.Format.text) -> None:
    """Renew a key or certificate. Sites that enrolled learn it by themselves when they next connect."""
    from fedser.errors import UsageError
    from fedser_server.state import State

    opened = State.open(state, create=False)
    if opened.file.own_ca is not None and what is not What.order_key:
        raise UsageError(
            "This node serves certificates of your own, which fedser did not issue.",
            "Renew them where they were issued, and put the new files in the old ones' place.",
        )
    result, text = {What.certificate: _certificate, What.order_key: _order_key, What.ca: _ca}[what](opened)
    console.emit({"renewed": what.value, **result}, form, lambda: text)


def _certificate(state: State) -> tuple[dict[str, Any], str]:
    state.renew_certificate()
    return {"hosts": state.hosts}, f"A new certificate for {', '.join(state.hosts)}; a running node takes it up."


def _order_key(state: State) -> tuple[dict[str, Any], str]:
    key = state.renew_order_key()
    return {"order_key": key}, f"Orders are signed by {key} from the next start on."


def _ca(state: State) -> tuple[dict[str, Any], str]:
    from fedser_server.tls import sha256

    lost = state.renew_ca()
    result = {"ca_sha256": sha256(state.ca), "authorities_left_behind": lost}
    text = f"The new authority is {result['ca_sha256']}; a running node takes it up."
    if lost:
        text += "\nSites that pinned the oldest authority and were not back since need a new invitation."
    return result, text
