"""The node's order of work, from the first byte fetched to the report. Each step can be taken up again."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from fedser import compute, console
from fedser.bundle import Bundle
from fedser.errors import EnrolmentError, StateError, UsageError
from fedser.federation import site_state
from fedser.federation.audit import read
from fedser.federation.layout import elements, layout_of
from fedser.federation.local import assemble
from fedser.federation.policy import Policy
from fedser_client import chain, dryrun, outputs, policies, presence
from fedser_client.data import SiteData, prepare
from fedser_client.enrolment import enrol
from fedser_client.fetch import Published, fetch, stored
from fedser_client.http import Routes, tls
from fedser_client.keys import node_key, reply_key
from fedser_client.loop import Connection, Rounds, WatchedLog
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.speakers import Marks, Withdrawn
from fedser_client.state import SiteFolder
from fedser_client.withdrawal import complete, rebuilt

_RESTORE = "Restore the state folder from a backup before going on."
_ENVELOPE = 1 << 21  # bytes of an order beside its tensors, at most


class Node:
    """One site at work, over a locked state folder.

    Args:
        folder: the state.
        settings: what the site remembers.
        patience: for a provider that is away.
        command: the command line, for the report.
        offline: take the stored bundle and ask nobody.
    """

    def __init__(
        self, folder: SiteFolder, settings: SiteSettings, patience: Patience, command: str, *, offline: bool = False
    ) -> None:
        self.folder = folder
        self._offline = offline
        self.settings = settings
        self._patience = patience
        self._command = command
        self._begin = time.perf_counter()

    def work(self, *, dry_run: bool = False, once: bool = False) -> dict[str, Any]:
        """All that is left to do.

        Args:
            dry_run: stop before anything but the bundle's GET was sent, and tell what would leave.
            once: stop after one order.

        Returns:
            What the command prints; ``kind`` is ``dry-run``, ``waiting``, ``finished`` or ``alone``.

        Raises:
            FedserError: the leaf that fits; the state takes up where it stopped.
        """
        self._in()
        compute.one_thread()
        device = compute.device(self.settings.device)
        place = policies.place(self.folder, self.settings.policy)
        policy = policies.read(place)
        published = self._published()
        bundle, rounds = published.bundle, published.rounds
        withdrawn, marks = complete(self.folder, self.settings, bundle), Marks(self.folder)
        excluded, unit = lambda each: withdrawn.excludes(marks, each), policy.privacy.unit
        data = prepare(bundle, self.settings, device, excluded, unit)
        if dry_run:
            budget = policies.ledger(self.folder, self.settings, policy)
            told = dryrun.describe(bundle, data, policy, place, self.settings, rounds, budget)
            return {"kind": "dry-run", **told}
        if rounds == 0:
            self.folder.tell(phase="working", time=int(time.time()))
            made = outputs.alone(
                *(self.folder, self.settings, bundle, data, policy),
                device=device,
                command=self._command,
                begin=self._begin,
            )
            return self._done("alone", made)
        if not self._take_part(data, policy, rounds, once, marks):
            return {"kind": "waiting", "study": self.settings.study, "state": str(self.folder.path)}
        return self._done("finished", self._personal(bundle, data, policy, withdrawn))

    def _published(self) -> Published:
        """The bundle and the number of rounds, from the provider unless the study is over."""
        settings = self.settings
        if (settings.finished and settings.rounds) or self._offline:
            return Published(stored(self.folder, settings), settings.rounds or 0)
        with self._routes() as routes:
            published = fetch(routes, self.folder, settings)
        self.settings = settings = self.folder.settings()  # the fetch may have learnt the bundle's signer
        header = published.bundle.header
        if published.rounds and settings.method:
            raise UsageError(
                "This provider runs rounds, and its orders name the method.",
                "Leave out --method; policy.yaml says which methods may run here.",
            )
        self._remember(bundle_name=header.name, bundle_version=header.version, rounds=published.rounds)
        console.say(f"bundle {header.name} {header.version}, signed by {header.signer[:16]}…")
        return published

    def _in(self) -> None:
        """Refuse to work for a study that the site has left.

        Raises:
            StateError: it has.
        """
        if self.settings.left is not None:
            raise StateError(
                f"This site left the study {self.settings.study}; its folder answers no order any more.",
                "To come back, ask for a new invitation, join with another --state, and name the same privacy ledger.",
            )

    def _take_part(self, data: SiteData, policy: Policy, rounds: int, once: bool, marks: Marks) -> bool:
        """Enrol where that is still to do, and answer orders; whether the study is finished."""
        if self.settings.finished:
            return True
        self._whole()
        audit = WatchedLog(self.folder.file("audit.jsonl"))
        node, reply = node_key(self.folder), reply_key(self.folder)
        if not self.settings.enrolled:
            if self.settings.expires < time.time():
                raise EnrolmentError("The invitation has expired.", "Ask the provider for a new invitation.")
            with self._routes() as routes:
                self.settings = self.folder.remember(enrol(routes, self.settings, node, reply, audit))
            console.say(f"enrolled as {self.settings.site} in {self.settings.study}; waiting for orders")
        model, here = data.local.model, {marks.of(each) for each in data.speech.speakers if each is not None}
        largest = 4 * elements(layout_of(model, dict(model.named_parameters()))) + _ENVELOPE
        site = Rounds(
            folder=self.folder,
            data=data.local,
            policy=policy,
            key=reply,
            audit=audit,
            rounds=rounds,
            refresh=self._refresh,
            open=lambda settings: self._line(settings, node, largest),
            patience=self._patience,
            attend=lambda work: presence.note(self.folder, here, work),
            ledger=policies.ledger(self.folder, self.settings, policy),
        )
        if not site.run(once=once):
            return False
        self._remember(finished=True)
        return True

    def _refresh(self) -> SiteSettings:
        """The settings with the provider's renewals."""
        with self._routes() as routes:
            self.settings = chain.refresh(routes, self.folder, self.settings)
        return self.settings

    def _line(
        self, settings: SiteSettings, key: ec.EllipticCurvePrivateKey, limit: int
    ) -> AbstractContextManager[Connection]:
        """A line over Flower's fleet protocol; Flower is imported here alone, after its switches are set."""
        from fedser.federation.flower import environment

        environment.prepare(self.folder.file("flower"))
        from fedser.federation.flower.site import Line

        return Line(settings.address, tls(settings.authorities), key, limit=limit, proxy=settings.proxy)

    def _whole(self) -> None:
        """Refuse to go on where somebody took files away: an old order could be carried out again, or unrecorded.

        Raises:
            StateError: the audit log or the state is gone.
            PolicyError: the audit log's chain is broken.
        """
        path = self.folder.file("audit.jsonl")
        if not self.settings.enrolled:
            return
        if not path.exists():
            raise StateError(f"The audit log {path} is gone, though this site took part.", _RESTORE)
        answered = any(record.get("event") in ("update", "resent") for record in read(path))
        if answered and not self.folder.file("state.safetensors").exists():
            raise StateError("The site's state is gone, though it answered orders.", _RESTORE)

    def _personal(self, bundle: Bundle, data: SiteData, policy: Policy, withdrawn: Withdrawn) -> dict[str, Any]:
        path = self.folder.file("state.safetensors")
        state = site_state.load(path, self.settings.study)
        if state is None or not state.personal:
            raise StateError("The finished study's model is gone from the state folder.", _RESTORE)
        if withdrawn.first is not None:  # the last joint model still holds what they brought
            model = rebuilt(self.folder, data, self.folder.status().get("order") or {}, withdrawn.first)
            state = replace(state, personal={name: t.detach().cpu() for name, t in model.state_dict().items()})
            site_state.save(path, state)
        return outputs.personal(
            *(self.folder, self.settings, bundle, data, assemble(data.local, state.personal)),
            policy=policy,
            command=self._command,
            begin=self._begin,
        )

    def _routes(self) -> Routes:
        return Routes(self.settings.address, self.settings.authorities, self.settings.proxy, self._patience)

    def _remember(self, **changes: object) -> None:
        changed = self.settings.model_copy(update=changes)
        if changed != self.settings:
            self.settings = self.folder.remember(changed)

    def _done(self, kind: str, made: dict[str, Any]) -> dict[str, Any]:
        self.folder.tell(phase="finished", time=int(time.time()))
        told = {"kind": kind, "study": self.settings.study, "site": self.settings.site, **made}
        return {**told, "audit": str(self.folder.file("audit.jsonl")), "state": str(self.folder.path)}
