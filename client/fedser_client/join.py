"""Joining a study, and taking a joined one up again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedser.config import validate
from fedser.errors import NoAudioError, StateError
from fedser.federation.invitation import Invitation
from fedser_client.node import Node
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder


@dataclass(frozen=True)
class Asked:
    """What the command line of ``join`` asks; None stands for the default."""

    data: Path
    policy: Path | None = None
    classes: tuple[str, ...] | None = None
    corpus: str | None = None
    speaker_from: str | None = None
    device: str = "auto"
    proxy: str | None = None
    method: str | None = None


def join(
    invitation: Path, asked: Asked, state: Path, *, patience: Patience, command: str, dry_run: bool, once: bool
) -> dict[str, Any]:
    """Join a study, or go on with it where it was joined from this folder before.

    Args:
        invitation: the file.
        asked: the command line.
        state: the folder; made when missing.
        patience: for a provider that is away.
        command: the command line as text.
        dry_run, once: see :meth:`fedser_client.node.Node.work`.

    Raises:
        FedserError: the leaf that fits.
    """
    if not asked.data.exists():
        raise NoAudioError(f"{asked.data} does not exist.", "Name the folder of the recordings with --data.")
    known = invitation_of(invitation, state)
    folder = SiteFolder.make(state)
    with folder.lock():
        settings = folder.remember(_settings(known, asked, folder))
        return _work(folder, settings, patience, command, dry_run=dry_run, once=once)


def run(state: Path, *, patience: Patience, command: str, once: bool) -> dict[str, Any]:
    """Take up a joined study.

    Raises:
        FedserError: the leaf that fits.
    """
    folder = SiteFolder.open(state)
    with folder.lock():
        return _work(folder, folder.settings(), patience, command, dry_run=False, once=once)


def invitation_of(path: Path, state: Path) -> Invitation:
    """The invitation; one that has expired serves a site that is enrolled already."""
    joined = state.is_dir() and (state / "site.json").exists()
    enrolled = joined and SiteFolder.open(state).settings().enrolled
    return Invitation.read(path, now=0 if enrolled else time.time())


def _work(
    folder: SiteFolder, settings: SiteSettings, patience: Patience, command: str, *, dry_run: bool, once: bool
) -> dict[str, Any]:
    try:
        return Node(folder, settings, patience, command).work(dry_run=dry_run, once=once)
    finally:
        if folder.status().get("phase") in ("waiting", "working"):
            folder.tell(phase="stopped", time=int(time.time()))


def _settings(invitation: Invitation, asked: Asked, folder: SiteFolder) -> SiteSettings:
    """What to remember: the invitation and the command line, and what an earlier join found out."""
    wanted: dict[str, object] = {
        "data": asked.data.resolve(),
        "policy": asked.policy.resolve() if asked.policy else None,
        "classes": asked.classes,
        "corpus": asked.corpus,
        "speaker_from": asked.speaker_from,
        "device": asked.device,
        "proxy": asked.proxy,
        "method": asked.method,
    }
    pinned = {
        **invitation.model_dump(include={"study", "site", "address", "ca", "order_key", "bundle_key", "token"}),
        "expires": invitation.expires,
    }
    if not folder.joined:
        return validate(SiteSettings, {**pinned, **wanted})
    known = folder.settings()
    if (known.study, known.site) != (invitation.study, invitation.site):
        raise StateError(
            f"{folder.path} belongs to {known.site} in the study {known.study}.",
            "Name another folder with --state: one folder is one site in one study.",
        )
    if known.enrolled:  # the pins stay, and the provider's chain leads on from them
        return known.model_copy(update={**wanted, "address": invitation.address})
    return validate(SiteSettings, {**pinned, **wanted})
