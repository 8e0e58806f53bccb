"""Withdrawal: the site leaves its study, or one of its speakers leaves the site's part in it."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedser.audio import cache, features, quality, recordings
from fedser.audio.utterance import Utterance
from fedser.bundle import Bundle
from fedser.errors import FedserError, NetworkError, UsageError, did_you_mean
from fedser.federation.audit import AuditLog
from fedser.federation.withdrawal import PATH, request
from fedser_client import outputs, presence
from fedser_client.fetch import stored
from fedser_client.http import Routes
from fedser_client.keys import reply_key
from fedser_client.node import Node
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.speakers import Marks, Withdrawal, Withdrawn
from fedser_client.state import SiteFolder
from fedser_client.withdrawal import UNDONE, complete

_LIMIT = 4096  # bytes of an answer
_STOPPING = 30.0  # seconds for a running node to end


def leave(state: Path, *, patience: Patience, command: str) -> dict[str, Any]:
    """Leave the study: stop answering, sign off at the provider, keep log, ledger and model.

    Done again, it only tells the provider, where that failed before.

    Raises:
        StateError: no study was joined in this folder, or it is damaged.
        NetworkError: the site has left, but the provider could not be told.
        OutputError: the folder cannot be written.
    """
    folder = SiteFolder.open(state)
    stopped = halt(folder)
    with folder.lock():
        settings = folder.settings()
        if settings.left is None:
            settings = folder.remember(settings.model_copy(update={"left": int(time.time()), "token": None}))
            was_in = folder.file("audit.jsonl").exists()
            settings = settings if was_in else folder.remember(settings.model_copy(update={"signed_off": True}))
        folder.tell(phase="left", time=int(time.time()))
        try:
            if not settings.signed_off:
                settings = _sign_off(folder, settings, patience)
        finally:
            report = outputs.departed(folder, settings, command=command)
    return {
        "kind": "left",
        "study": settings.study,
        "site": settings.site,
        "left": settings.left,
        "signed_off": settings.signed_off,
        "stopped": stopped,
        "undone": list(UNDONE),
        "report": str(report),
        "state": str(state),
    }


def drop(state: Path, speaker: str, *, patience: Patience, command: str) -> dict[str, Any]:
    """Withdraw one speaker: left out from now on; where they took part, the personal model is made anew.

    Raises:
        StateError: no study was joined in this folder, or it is damaged.
        UsageError: nobody of this name is, or was, at this site.
        NoAudioError: nobody is left.
        OutputError: the folder cannot be written.
    """
    folder = SiteFolder.open(state)
    stopped = halt(folder)
    with folder.lock():
        settings = folder.settings()
        bundle = stored(folder, settings) if folder.file("bundle.safetensors").exists() else None
        entry, own = _record(folder, settings, speaker)
        forgotten = 0 if bundle is None else _forget(own, bundle)
        if bundle is not None:
            complete(folder, settings, bundle)
        made: dict[str, Any] = {}
        if bundle is not None and (settings.finished or (settings.rounds == 0 and settings.left is None)):
            made = Node(folder, settings, patience, command, offline=True).work()
        return {
            "kind": "withdrawn",
            "study": settings.study,
            "site": settings.site,
            "first_round": entry.first,
            "rounds": entry.rounds,
            "rebuilt_from": None if entry.first is None else presence.start(folder, entry.first)[0],
            "rebuilt": bool(made),
            "features_deleted": forgotten,
            "stopped": stopped,
            "undone": list(UNDONE),
            "report": made.get("report"),
            "state": str(state),
        }


def halt(folder: SiteFolder) -> bool:
    """Stop the node that runs on a state folder, as SIGTERM does; whether there was one."""
    process = folder.holder()
    if not process or process == os.getpid():
        return False
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGTERM)
    end = time.monotonic() + _STOPPING
    while folder.holder() == process and time.monotonic() < end:
        time.sleep(0.1)
    return True


def _sign_off(folder: SiteFolder, settings: SiteSettings, patience: Patience) -> SiteSettings:
    """Tell the provider; recorded before it leaves.

    Raises:
        NetworkError: it could not be told.
    """
    body = request(settings.study, settings.site, reply_key(folder)).model_dump_json().encode("utf-8")
    digest = hashlib.sha256(body).hexdigest()
    AuditLog(folder.file("audit.jsonl")).append(
        {"time": int(time.time()), "event": "leave", "bytes": len(body), "sha256": digest}
    )
    again = f"Run 'fedser-client leave --state {folder.path}' again later, or ask the provider to revoke this site."
    try:
        with Routes(settings.address, settings.authorities, settings.proxy, patience) as routes:
            status = routes.post(PATH, body, _LIMIT).status
    except FedserError as error:
        raise NetworkError(f"This site has left, but the provider could not be told: {error}", again) from None
    if status not in (200, 403):  # 403: it does not know this key, or no longer
        raise NetworkError(f"This site has left, but the provider answers its word with status {status}.", again)
    return folder.remember(settings.model_copy(update={"signed_off": True}))


def _record(folder: SiteFolder, settings: SiteSettings, speaker: str) -> tuple[Withdrawal, list[Utterance]]:
    """Write down who withdraws, as a mark; the entry, and the utterances that there are of them."""
    marks, withdrawn = Marks(folder), Withdrawn.load(folder)
    mark = marks.of(speaker)
    found = recordings.resolve(settings.data, corpus=settings.corpus, speaker_from=settings.speaker_from).utterances
    own = [utterance for utterance in found if utterance.speaker == speaker]
    if mark in withdrawn.speakers:
        return withdrawn.speakers[mark], own
    rounds = presence.Presence.load(folder).rounds_of(mark)
    if not own and not rounds:
        names = {utterance.speaker for utterance in found if utterance.speaker}
        raise UsageError(
            f"Nobody called {speaker!r:.80} is at this site, or was in one of its rounds."
            + did_you_mean(speaker, names),
            "Name a speaker as the manifest, the corpus or --speaker-from does; recordings without a declared speaker "
            "are withdrawn by deleting them.",
        )
    now = int(time.time())
    entry = Withdrawal(time=now, first=min(rounds, default=None), rounds=len(rounds))
    AuditLog(folder.file("audit.jsonl")).append({"time": now, "event": "withdrawal", "of": "speaker"})
    withdrawn.with_(mark, entry).save(folder)
    return entry, own


def _forget(utterances: list[Utterance], bundle: Bundle) -> int:
    """Delete what the feature cache holds of some utterances; how many entries."""
    settings = bundle.header.features
    store = cache.FeatureCache(features.version(settings), features.shape(settings))
    seen = quality.inspect(utterances)
    return sum(store.drop(cache.key(d, u)) for d, u in zip(seen.digests, seen.kept, strict=True))
