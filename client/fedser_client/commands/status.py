"""``fedser-client status``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedser import console
from fedser_client.commands import options

if TYPE_CHECKING:
    from fedser_client.settings import SiteSettings
    from fedser_client.state import SiteFolder


def status(
    state: options.State = options.DEFAULT_STATE,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Show what the site is doing, and what it answered so far."""
    from fedser_client.speakers import Withdrawn
    from fedser_client.state import SiteFolder

    folder = SiteFolder.open(state)
    settings, told, pid = folder.settings(), folder.status(), folder.holder()
    result = {
        "study": settings.study,
        "site": settings.site,
        "provider": settings.address,
        "enrolled": settings.enrolled,
        "finished": settings.finished,
        "running": pid,
        "phase": _phase(settings, told) if pid is None else told.get("phase", "joined"),
        "fingerprint": _fingerprint(folder),
        "left_at": settings.left,
        "privacy": _privacy(folder, settings),
        "withdrawn": len(Withdrawn.load(folder).speakers),
        "round": min(told.get("round", 0), settings.rounds or 0),
        "rounds": settings.rounds,
        **{name: told.get(name, 0) for name in ("orders", "refusals", "bytes")},
        "last": told.get("last"),
        "alone": _alone(folder, settings),
        "data": str(settings.data),
        "state": str(state),
    }
    console.emit(result, form, lambda: _text(result))


def _phase(settings: SiteSettings, told: dict[str, Any]) -> str:
    """What a site is at that no process works for."""
    if settings.left is not None:
        return "left"
    return "finished" if settings.finished else "stopped"


def _privacy(folder: SiteFolder, settings: SiteSettings) -> dict[str, Any]:
    """The privacy that the policy asks for, with what is spent and left of the budget."""
    from fedser.privacy import sentences
    from fedser_client import policies

    policy = policies.read(policies.place(folder, settings.policy))
    return sentences.facts(policy.privacy, policies.ledger(folder, settings, policy))


def _alone(folder: SiteFolder, settings: SiteSettings) -> str | None:
    """The command that adapts the study's bundle here, without the study; None before there is a bundle."""
    from fedser.bundle.format import default_signer

    path = folder.file("bundle.safetensors")
    if not path.exists():
        return None
    words = ["fedser", "adapt", "--bundle", str(path), "--signer", settings.bundle_key or default_signer()]
    words += ["--data", str(settings.data), "--out", "adapted"]
    return shlex.join([*words, *(["--speaker-from", settings.speaker_from] if settings.speaker_from else [])])


def _fingerprint(folder: SiteFolder) -> str | None:
    """Of the key that signs this site's replies; None before there is one."""
    from fedser.bundle import keys

    path = keys.public_path(folder.file("keys") / "reply-key")
    return keys.fingerprint(keys.signer(str(path))) if path.exists() else None


def _text(result: dict[str, Any]) -> str:
    from fedser.evaluate.view_left import moment, size

    running = f"process {result['running']}" if result["running"] else "not running"
    lines = [
        f"{result['site']} in {result['study']}, provider {result['provider']}: {result['phase']} ({running})",
        f"round {result['round']} of {'?' if result['rounds'] is None else result['rounds']}; "
        f"{result['orders']} orders answered, {result['refusals']} refused, {size(result['bytes'])} left this site",
    ]
    last = result["last"]
    if isinstance(last, dict):
        what = " ".join(str(last[key]) for key in ("event", "code") if last.get(key))
        lines.append(f"last: {what} at {moment(last.get('time'))} UTC")
        if last.get("code") == "BUDGET" and result["alone"]:
            lines.append(f"the privacy budget is spent; this site can go on by itself:\n  {result['alone']}")
    privacy = result["privacy"]
    if privacy["unit"] == "none":
        lines.append("privacy: no differential privacy" + (", updates masked" if privacy["masked"] else ""))
    else:
        lines.append(
            f"privacy: unit {privacy['unit']}, ε spent {privacy['spent']:g} of {privacy['epsilon']:g}, left "
            f"{privacy['left']:g} (δ = {privacy['delta']:g})"
        )
    if result["withdrawn"]:
        lines.append(f"speakers who withdrew: {result['withdrawn']}")
    if result["left_at"] is not None:
        lines.append(f"left the study at {moment(result['left_at'])} UTC")
    elif not result["enrolled"]:
        lines.append("not enrolled yet")
    return "\n".join(lines)
