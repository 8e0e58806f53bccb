"""The rounds: an order comes, the site answers, the answer leaves. The state on disk makes every moment restartable."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fedser import console
from fedser.bundle.keys import SigningKey
from fedser.errors import EnrolmentError, NetworkError, WireError
from fedser.evaluate.view_left import size
from fedser.federation import audit_entries, secure_state, site_state
from fedser.federation.audit import AuditLog
from fedser.federation.local import adapt_locally
from fedser.federation.policy import Policy
from fedser.federation.schema import Code
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, SiteState, SiteWork
from fedser.privacy.ledger import Ledger
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

_TURNED_AWAY = 5  # times in a row that a provider may say that it does not know this site: it may be starting
_ADVICE = {
    Code.EXPIRED.name: "; look at this machine's clock",
    Code.BUDGET.name: "; the privacy budget is spent, 'fedser adapt' works here without it",
    Code.PRIVATE.name: "; under this policy's privacy unit it would not be sound, see docs/privacy.md",
    Code.MASK.name: "; the policy asks for a masked sum that this study does not offer, or other peers",
}
LAST_MOMENT = 60.0  # seconds for which a finished site waits to be asked once more


class Mail(Protocol):
    """An order as it came."""

    @property
    def data(self) -> bytes:
        """The order's bytes."""


class Connection(Protocol):
    """What the loop needs of a line to the provider."""

    def receive(self) -> Mail | None:
        """The next order; None when the provider had none for a while."""

    def reply(self, order: Any, data: bytes) -> bool:  # noqa: ANN401 - each line has letters of its own
        """Send the answer; False when nobody waits for it any more."""


Refresh = Callable[[], SiteSettings]
Open = Callable[[SiteSettings], AbstractContextManager[Connection]]


class WatchedLog(AuditLog):
    """An audit log that remembers its latest record, for the line that a person reads."""

    latest: Mapping[str, Any]

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.latest = {}

    def append(self, entry: Mapping[str, Any]) -> str:
        """Write one record, and remember it."""
        told = super().append(entry)
        self.latest = entry
        return told


@dataclass
class Rounds:
    """A site's part in the rounds.

    Attributes:
        folder: the state.
        data: what the site adapts on.
        policy: what it allows.
        key: signs its replies.
        audit: the log of what leaves.
        rounds: of the study, as the provider told.
        refresh: asks for the provider's renewals.
        open: opens a line to the provider.
        patience: for a provider that is away.
        attend: writes down who takes part, before an order is carried out.
        ledger: the privacy budget, where the policy has a unit.
    """

    folder: SiteFolder
    data: LocalData
    policy: Policy
    key: SigningKey
    audit: WatchedLog
    rounds: int
    refresh: Refresh
    open: Open
    patience: Patience
    attend: Callable[[SiteWork], None] = lambda work: None
    ledger: Ledger | None = None
    _made: float | None = None  # when the personal model was first seen
    _turned_away: int = 0
    _order_key: str = ""

    def run(self, *, once: bool = False) -> bool:
        """Answer orders until the one to finish was answered.

        Args:
            once: stop after one order.

        Returns:
            Whether the study is finished.

        Raises:
            EnrolmentError: the provider does not know this site any more.
            NetworkError: the patience is used up, or the provider is not the pinned one.
            OutputError: the state or the audit log cannot be written; nothing more leaves.
        """
        self._look(site_state.load(self._path))
        while True:
            settings = self._refreshed()
            if settings is None:
                return True
            try:
                with self.open(settings) as line:
                    return self._serve(self._site(settings), line, once)
            except EnrolmentError as error:
                self._turned_away += 1
                if self._turned_away == _TURNED_AWAY:
                    raise
                problem = NetworkError(str(error), error.hint)
            except (NetworkError, WireError) as error:
                problem = NetworkError(str(error), error.hint)
            if not self._wait(problem):
                return True

    def _serve(self, site: Site, line: Connection, once: bool) -> bool:
        """Answer what comes over one line; whether the study is finished."""
        while True:
            self.folder.tell(phase="waiting", time=int(time.time()))
            mail = line.receive()
            self.patience.reset()
            self._turned_away = 0
            if mail is not None:
                site = self._answer(site, line, mail)
                if site.state.personal or (once and self.audit.latest.get("event") not in audit_entries.MASKING):
                    return bool(site.state.personal)
            elif self._overdue():
                return True

    def _answer(self, site: Site, line: Connection, mail: Mail) -> Site:
        """One order: answered, recorded, sent, told."""
        begin = time.monotonic()
        self.folder.tell(phase="working", time=int(time.time()))
        reply = site.answer(mail.data)
        if self.audit.latest.get("code") == Code.MALFORMED.name:
            settings = self.refresh()
            if _order_key(settings) != self._order_key:  # renewed since this line was opened
                site = self._site(settings)
                reply = site.answer(mail.data)
        self._look(site.state)
        line.reply(mail, reply)
        self._tell(time.monotonic() - begin)
        return site

    def _wait(self, problem: NetworkError) -> bool:
        """Wait before the next line; False when the personal model is made and the provider stays away."""
        try:
            self.patience.wait(problem)
        except NetworkError:
            if self._made is None:
                raise
            return False
        return not self._overdue()

    def _refreshed(self) -> SiteSettings | None:
        """The settings with the provider's renewals; None when it is gone and the personal model is made."""
        try:
            return self.refresh()
        except NetworkError:
            if self._made is None:
                raise
            return None

    def _look(self, state: SiteState | None) -> None:
        """Note when the personal model is there: from then on the provider may go for good."""
        if state is not None and state.personal and self._made is None:
            self._made = time.monotonic()
            given = self.patience.limit
            self.patience.limit = LAST_MOMENT if given is None else min(given, LAST_MOMENT)

    def _overdue(self) -> bool:
        """Whether nobody asked for the last answer again: it had arrived before a crash or a cut."""
        return self._made is not None and time.monotonic() - self._made > LAST_MOMENT

    @property
    def _path(self) -> Path:
        return self.folder.file("state.safetensors")

    @property
    def _secure_path(self) -> Path:
        """Keys and shares of the masked sum that goes on."""
        return self.folder.file("masking.json")

    def _site(self, settings: SiteSettings) -> Site:
        self._order_key = _order_key(settings)
        return Site(
            settings.site,
            settings.study,
            self.data,
            self.policy,
            self.key,
            self._order_key,
            audit=self.audit,
            state=site_state.load(self._path, settings.study),
            keep=lambda state: site_state.save(self._path, state),
            secure=secure_state.load(self._secure_path, settings.study),
            keep_secure=lambda state: secure_state.save(self._secure_path, state),
            stages=(self._note, adapt_locally),
            ledger=self.ledger,
        )

    def _note(self, work: SiteWork) -> SiteWork:
        """A stage that changes nothing: it remembers which order is being carried out, and who takes part."""
        order = work.order
        self.attend(work)
        told = {"method": order.method, "options": dict(order.options), "seed": order.seed, "steps": order.work.steps}
        self.folder.tell(order=told, round=order.round)
        return work

    def _tell(self, seconds: float) -> None:
        record, known = self.audit.latest, self.folder.status()
        event, sent = str(record.get("event")), int(record.get("bytes") or 0)
        counts = {
            "orders": int(known.get("orders", 0)) + (event in ("update", "finished")),
            "refusals": int(known.get("refusals", 0)) + (event == "refusal"),
            "bytes": int(known.get("bytes", 0)) + sent,
        }
        self.folder.tell(time=int(time.time()), last={**record, "seconds": round(seconds, 1)}, **counts)
        number = f"round {record.get('round')} of {self.rounds}"
        steps = (known.get("order") or {}).get("steps", 0)
        if event in audit_entries.MASKING:
            return
        if event == "refusal":
            told = _ADVICE.get(str(record.get("code")), "")
            console.say(f"an order was refused: {record.get('code')}; only this code left, the site goes on{told}")
        elif event == "resent":
            console.say(f"{number}: the stored answer was sent again, {size(sent)} left this site")
        elif event == "finished":
            console.say(f"the last order: {steps} steps, the personal model is made, {size(sent)} left this site")
        else:
            console.say(
                f"{number}: {len(self.data.x)} utterances, {steps} steps, {size(sent)} left this site, {seconds:.1f} s"
            )


def _order_key(settings: SiteSettings) -> str:
    """The key that signs orders now."""
    return settings.trusted_key or settings.order_key
