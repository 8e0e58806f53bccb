"""A study's rounds over the network: wait for sites, exchange, checkpoint, finish."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from fedser import adapt, console
from fedser.adapt import Schedule
from fedser.adapt.method import Gradient
from fedser.bundle import Bundle
from fedser.bundle.keys import SigningKey
from fedser.errors import QuorumError
from fedser.federation.aggregation import server_stages
from fedser.federation.layout import elements
from fedser.federation.plan import Joining, Plan, beginning_of, plan_of
from fedser.federation.provider import Answered, Provider, Refused, Transport
from fedser.federation.stages import ServerState
from fedser_server.checkpoint import Checkpoint, Checkpoints
from fedser_server.journal import Journal
from fedser_server.settings import StudySettings

_LOOK = 0.1  # seconds between two looks at who is there


def plan(study: str, settings: StudySettings, bundle: Bundle) -> Plan:
    """What the settings make of a bundle; its sites are filled in at each round.

    Raises:
        UsageError: there is no such method.
        ConfigError: nothing would travel, or a peer is to be shared and the bundle has none.
    """
    method = adapt.make(settings.method.name, settings.method.options)
    schedule = settings.schedule or (method.schedule if isinstance(method, Gradient) else Schedule())
    steps = schedule.total(settings.utterances)
    personal = round(settings.personal * settings.student.shared(steps))
    return plan_of(
        study,
        bundle.classifier(),
        bundle.linear(),
        method,
        schedule.model_copy(update={"steps": steps}),
        Joining(
            rounds=settings.rounds,
            personal_steps=personal,
            leave=settings.leave,
            encoding=settings.encoding,
            peer=settings.peer,
            seed=settings.seed,
            network=settings.network,
            masking=settings.masking if settings.masked else None,
            student=settings.student,
        ),
        quorum=settings.least,
        largest_norm=settings.largest_norm,
        lifetime=settings.lifetime,
    )


class Rounds:
    """All rounds of a study, from wherever its checkpoint stands.

    Args:
        plan: see :func:`plan`.
        settings: the study's.
        bundle: where the first round starts.
        key: signs the orders.
        transport: reaches the sites.
        enrolled: reply keys, in hexadecimal, of the sites that are enrolled now, by name.
        online: names of the sites that gave a sign of life.
        checkpoints: of this study.
        journal: where everything is told.
    """

    def __init__(
        self,
        plan: Plan,
        settings: StudySettings,
        bundle: Bundle,
        *,
        key: SigningKey,
        transport: Transport,
        enrolled: Callable[[], Mapping[str, str]],
        online: Callable[[], set[str]],
        checkpoints: Checkpoints,
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._checkpoints = checkpoints
        self._journal = journal
        self._enrolled = enrolled
        self._online = online
        self._start = beginning_of(bundle.classifier(), bundle.linear(), plan.layout)
        self._heard: list[Answered | Refused] = []
        self._finished: set[str] = set()  # that answered the order to finish
        self._answers: dict[str, Any] = {}  # what each site said in this round, for the status
        self._provider = Provider(
            plan,
            key,
            transport,
            server_stages(
                settings.aggregation, plan.layout, masked=settings.masked, student=settings.student.steps > 0
            ),
            flight=lambda number: checkpoints.flight(
                number, settings.lifetime, anew=settings.masked and number <= plan.rounds
            ),
            observe=self._observe,
        )

    def run(self, *, wait: float | None = None, finished: frozenset[str] = frozenset()) -> Tensor:
        """Run what is left of the study.

        Args:
            wait: seconds to wait for the first round's sites; for ever when None.
            finished: sites that answered the order to finish before.

        Returns:
            The last joint tensors, flat float32 [P].

        Raises:
            QuorumError: too few sites came, or too few valid updates.
            OutputError: a checkpoint cannot be written.
        """
        plan, known = self._provider.plan, self._checkpoints.load()
        done, tensors, state = (known.round, known.flat, known.state) if known else (0, self._start, ServerState())
        self._start = tensors[:0]  # a large model need not lie in memory twice
        values = elements(plan.layout)
        console.say(f"study {plan.study}: {plan.method}, {plan.rounds} rounds, {values:,} values travel")
        if done:
            console.say(f"going on after round {done}")
        self._journal.tell(study=plan.study, rounds=plan.rounds, round=done, quorum=plan.quorum, values=values)
        if done < plan.rounds:
            self._wait(self._settings.sites, plan.quorum if done else self._settings.sites, wait)
        for number in range(done + 1, plan.rounds + 1):
            tensors, state = self._round(number, tensors, state)
        self._finish(tensors, finished)
        return tensors

    def _round(self, number: int, tensors: Tensor, state: ServerState) -> tuple[Tensor, ServerState]:
        begin = time.monotonic()
        self._take_roster()
        self._journal.tell(phase="round", round=number, answers={}, online=sorted(self._online()))
        self._forget()
        try:
            tensors, state = self._provider.round(number, tensors, state)
        except QuorumError:
            self._journal.tell(phase="failed")
            raise
        path = self._checkpoints.save(Checkpoint(number, tensors, state))
        seconds = time.monotonic() - begin
        self._journal.record({"event": "round", "round": number, "seconds": round(seconds, 3), "file": path.name})
        console.say(self._line(f"round {number} of {self._provider.plan.rounds}", seconds))
        return tensors, state

    def _finish(self, tensors: Tensor, finished: frozenset[str]) -> None:
        """Send the last order to all that have not answered it yet."""
        self._take_roster()
        left = [site for site in self._provider.plan.sites if site not in finished]
        self._finished = set(finished)
        self._journal.tell(phase="finish", answers={}, finished=sorted(finished))
        self._forget()
        begin = time.monotonic()
        done = {*finished, *self._provider.finish(tensors, left)}
        if left:
            console.say(self._line("the last order", time.monotonic() - begin))
        missing = sorted(set(self._provider.plan.sites) - done)
        self._journal.tell(phase="done", finished=sorted(done))
        if missing:
            console.say(f"without the last model: {', '.join(missing)}; start the node again to send it to them")

    def _wait(self, wanted: int, enough: int, limit: float | None) -> None:
        """Wait until ``wanted`` sites are online; ``enough`` of them do after the patience.

        Raises:
            QuorumError: they did not come in time.
        """
        begin, told = time.monotonic(), -1
        while (count := len(self._online() & set(self._enrolled()))) < wanted:
            waited = time.monotonic() - begin
            if count >= enough and waited > self._settings.patience:
                return
            if limit is not None and waited > limit:
                raise QuorumError(
                    f"{count} of {wanted} sites came within {limit:g} seconds.",
                    "Invite more sites, look at their side, or start with fewer (--sites).",
                )
            if count != told:
                told = count
                names = sorted(self._enrolled())
                self._journal.tell(phase="waiting", online=sorted(self._online()), wanted=wanted)
                console.say(f"waiting for {wanted} sites: {len(names)} enrolled, {count} online")
            time.sleep(_LOOK)

    def _take_roster(self) -> None:
        """Sites that enrolled since take part from now on; revoked ones no longer."""
        self._provider.plan = replace(self._provider.plan, sites=dict(self._enrolled()))

    def _forget(self) -> None:
        self._heard.clear()
        self._answers.clear()

    def _observe(self, event: Answered | Refused) -> None:
        self._heard.append(event)
        if isinstance(event, Answered):
            told: dict[str, Any] = {"seconds": round(event.seconds, 3), "bytes": event.bytes}
            self._journal.record({"event": "answered", "round": event.round, "site": event.site, **told})
            if event.round > self._provider.plan.rounds:  # it ends now: a restarted node must not wait for it
                self._finished.add(event.site)
                self._journal.tell(finished=sorted(self._finished))
        else:
            told = {"refused": event.code}
            self._journal.record({"event": "no update", "round": event.round, "site": event.site, "why": event.code})
        self._answers[event.site] = told
        self._journal.tell(answers=self._answers)

    def _line(self, what: str, seconds: float) -> str:
        answered = [event for event in self._heard if isinstance(event, Answered)]
        total = sum(event.bytes for event in answered)
        sites = len({event.site for event in self._heard})
        line = f"{what}: {len(answered)} of {sites} sites answered, {seconds:.1f} s, {_size(total)}"
        refused = [f"{event.site}: {event.code}" for event in self._heard if isinstance(event, Refused)]
        return line + (f"; without {'; '.join(refused)}" if refused else "")


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
