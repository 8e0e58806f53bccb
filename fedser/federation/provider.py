"""The provider's rounds: orders out, replies validated one at a time, aggregation. It sees no transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Literal, Protocol

from pydantic import ValidationError
from torch import Tensor

from fedser.bundle.keys import SigningKey
from fedser.errors import ConfigError, QuorumError, WireError
from fedser.federation import wire
from fedser.federation.layout import elements, norm, tensor_digest
from fedser.federation.plan import Plan, site_seed, travelling
from fedser.federation.schema import PROTOCOL, Order, Refusal, Terms, Update
from fedser.federation.secure_provider import MaskedRound
from fedser.federation.stages import Received, ServerStage, ServerState, server_step

__all__ = [
    "Answered",
    "Flight",
    "Phase",
    "Plan",
    "Provider",
    "Refused",
    "Silence",
    "Transport",
    "accept",
    "check_update",
    "site_seed",
    "travelling",
]

Phase = Literal["train", "finish"]


class Transport(Protocol):
    """The one method that simulation and network differ in."""

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        """Bring each order to its site and yield the replies in the order of their arrival.

        Args:
            orders: (site, order), made one at a time as they are taken.

        Returns:
            One (site, reply) for each order; where none came, why.
        """


@dataclass(frozen=True)
class Silence:
    """A site from which no reply came."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """An order that brought no update: the site's own code, or why its reply was not accepted."""

    round: int
    site: str
    code: str


@dataclass(frozen=True)
class Answered:
    """A valid reply: its size in bytes, and when it came, in seconds since the round's first order."""

    round: int
    site: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class Flight:
    """What makes the orders of one try of a round: the same flight makes the same bytes again.

    Attributes:
        attempt: counts the tries of one round from 0.
        expires: Unix time, in seconds, after which sites refuse its orders.
    """

    attempt: int
    expires: int


@dataclass
class Provider:
    """Runs a plan over a transport.

    Attributes:
        plan: the study.
        key: signs the orders.
        transport: reaches the sites.
        stages: of a server step.
        flight: attempt and expiry of a round's orders; a node that restarts within a round keeps them.
        observe: called with each reply and each refusal as it comes.
        refusals: what was refused so far, by whom and why.
    """

    plan: Plan
    key: SigningKey
    transport: Transport
    stages: tuple[ServerStage, ...]
    clock: Callable[[], float] = time.time
    flight: Callable[[int], Flight] | None = None
    observe: Callable[[Answered | Refused], None] = lambda event: None
    refusals: list[Refused] = field(default_factory=list)

    def run(
        self,
        tensors: Tensor,
        after_round: Callable[[int, Tensor, ServerState], None] | None = None,
        *,
        state: ServerState | None = None,
        done: int = 0,
    ) -> Tensor:
        """All rounds that are not done yet, then the order to finish.

        Args:
            tensors: the signed bundle's, or those after round ``done``; flat float32 [P].
            after_round: called with the round's number, the new tensors and the server's state.
            state: of the server after round ``done``.
            done: rounds that an earlier run completed.

        Returns:
            The last tensors, flat float32 [P].

        Raises:
            QuorumError: too few valid updates in a round.
        """
        state = state or ServerState()
        for number in range(done + 1, self.plan.rounds + 1):
            tensors, state = self.round(number, tensors, state)
            if after_round is not None:
                after_round(number, tensors, state)
        self.finish(tensors)
        return tensors

    def round(self, number: int, tensors: Tensor, state: ServerState) -> tuple[Tensor, ServerState]:
        """One exchange.

        Raises:
            QuorumError: too few valid updates.
        """
        if self.plan.masking is not None:
            return self._masked_round(number, tensors, state, self.plan.masking.terms(len(self.plan.sites)))
        answered = 0

        def updates() -> Iterator[Received]:  # one at a time: the peak does not grow with the sites
            nonlocal answered
            for received in self._exchange(number, self.plan.sites, "train", tensors):
                answered += 1
                yield received
                del received

        after = server_step(self.stages, tensors, updates(), state)
        if answered < self.plan.quorum:
            raise self._too_few(number, answered)
        return after

    def _masked_round(
        self, number: int, tensors: Tensor, state: ServerState, terms: Terms
    ) -> tuple[Tensor, ServerState]:
        """One exchange after the other, until the sum of the updates, and nothing else of them, is known."""
        mean, sites = MaskedRound(self, number, tensors, terms, self._flight(number)).run()
        if len(sites) < self.plan.quorum:
            raise self._too_few(number, len(sites))
        digest = tensor_digest(mean)
        joint = Update(protocol=1, order_digest=digest, tensor_digest=digest, utterances=None, scalars=None)
        return server_step(self.stages, tensors, [Received("all together", joint, mean)], state)

    def _too_few(self, number: int, answered: int) -> QuorumError:
        return QuorumError(
            f"Round {number} brought {answered} valid updates, and {self.plan.quorum} are needed.", self.blame(number)
        )

    def finish(self, tensors: Tensor, sites: Iterable[str] | None = None) -> list[str]:
        """Send the last tensors; each site makes its personal model of them and answers without a tensor.

        Args:
            tensors: flat float32 [P].
            sites: to whom; all sites of the plan when None.

        Returns:
            The sites that answered.
        """
        wanted = self.plan.sites if sites is None else sites
        return [received.site for received in self._exchange(self.plan.rounds + 1, wanted, "finish", tensors)]

    def _exchange(self, number: int, sites: Iterable[str], phase: Phase, tensors: Tensor) -> Iterator[Received]:
        """Send one order to each site and yield the valid answers."""
        flight = self._flight(number)
        asked: dict[str, Order] = {}

        def orders() -> Iterator[tuple[str, bytes]]:
            for site in sites:
                asked[site] = self.order(number, site, phase, tensors, flight)
                yield site, wire.encode(asked[site], tensors, self.key)

        begin = time.monotonic()
        for site, reply in self.transport.exchange(orders()):
            if site not in asked:
                continue  # no order of this exchange, or its second reply
            try:
                received = accept(reply, asked.pop(site), site, self.plan)
            except WireError as error:
                self.refused(number, site, str(error))
                continue
            self.answered(number, site, len(reply) if isinstance(reply, bytes) else 0, time.monotonic() - begin)
            yield received
            del received, reply  # before the next one is read

    def order(self, number: int, site: str, phase: Phase, tensors: Tensor, flight: Flight | None = None) -> Order:
        """The order of one round for one site.

        Raises:
            ConfigError: the plan asks for what the schema of orders does not hold.
        """
        try:
            return self._order(number, site, phase, tensors, flight or self._flight(number))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where, what = ".".join(str(part) for part in first["loc"]), first["msg"]
            raise ConfigError(
                f"No order can hold '{where}' = {first['input']!r}: {what[0].lower()}{what[1:]}.",
                "Name sites with letters, digits, '.', '_' and '-', and choose a smaller schedule.",
            ) from None

    def _order(self, number: int, site: str, phase: Phase, tensors: Tensor, flight: Flight) -> Order:
        plan, start = self.plan, self.plan.steps_before(number)
        steps = plan.personal_steps if phase == "finish" else plan.steps_before(number + 1) - start
        return Order(
            protocol=PROTOCOL,
            study=plan.study,
            round=number,
            attempt=flight.attempt,
            site=site,
            phase=phase,
            method=plan.method,
            options=dict(plan.options),
            work=plan.work(start, steps) if plan.student is None else plan.work(0, plan.total),
            seed=site_seed(plan.seed, site),
            layout=plan.layout,
            tensor_digest=tensor_digest(tensors),
            expires=flight.expires,
            encoding=plan.encoding,
            peer=plan.peer,
            student=None if plan.student is None else plan.student.work(start, steps),
        )

    def _flight(self, number: int) -> Flight:
        return self.flight(number) if self.flight else Flight(0, int(self.clock()) + self.plan.lifetime)

    def answered(self, number: int, site: str, size: int, seconds: float) -> None:
        """Tell that a site's update came: in so many bytes, so many seconds after the round began."""
        self.observe(Answered(number, site, size, seconds))

    def refused(self, number: int, site: str, why: str) -> None:
        """Note that a site brought no update, or left a masked sum later on, and tell it."""
        self.refusals.append(Refused(number, site, why))
        self.observe(self.refusals[-1])

    def blame(self, number: int) -> str:
        """Which sites a person should ask why a round failed."""
        reasons = [f"{r.site}: {r.code}" for r in self.refusals if r.round == number]
        return "Ask these sites: " + "; ".join(reasons) + "." if reasons else "Invite more sites."


def accept(reply: bytes | Silence, order: Order, site: str, plan: Plan) -> Received:
    """Validate one reply against its order.

    Raises:
        WireError: it is refused; the message is the reason, and the site's code where the site refused.
    """
    hint = "The round goes on without this site."
    if isinstance(reply, Silence):
        raise WireError(reply.reason, hint)
    limits = wire.Limits(elements=elements(plan.layout))
    message, flat = wire.decode_reply(reply, plan.sites[site], limits)
    if isinstance(message, Refusal):
        raise WireError(message.code.name, hint)
    check_update(message, flat, order, plan.largest_norm)
    return Received(site, message, flat)


def check_update(update: Update, flat: Tensor, order: Order, largest_norm: float) -> None:
    """Check an update that is on the schema and correctly signed.

    Raises:
        WireError: it answers another order, has another length, or is not finite or too long.
    """
    hint = "The round goes on without this site."
    if update.order_digest != wire.order_digest(order):
        raise WireError("The update answers another order.", hint)
    layout = order.layout if order.phase == "train" else ()
    expected = elements(layout)
    if update.encoding != order.encoding:
        raise WireError("The update is in another encoding than the order's.", hint)
    if update.scales is not None and [size for size, _ in update.scales] != [prod(shape) for _, shape in layout]:
        raise WireError("The update's scales are not those of the order's tensors.", hint)
    if len(flat) != expected:
        raise WireError("The update has another length than the order's layout.", hint)
    if not norm(flat) <= largest_norm:  # also refuses NaN
        raise WireError("The update is not finite or its norm is too large.", hint)
