"""The provider's rounds: orders out, replies validated one at a time, aggregation. It sees no transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pydantic import ValidationError
from torch import Tensor

from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.errors import ConfigError, QuorumError, WireError
from fedser.federation import wire
from fedser.federation.layout import Layout, elements, tensor_digest
from fedser.federation.schema import PROTOCOL, Order, Refusal, Update, Work
from fedser.federation.stages import Received, ServerStage, ServerState, server_step


class Transport(Protocol):
    """The one method that simulation and network differ in."""

    def deliver(self, site: str, order: bytes) -> bytes:
        """Bring an order to a site and return its reply.

        Raises:
            WireError: there is no reply.
        """


@dataclass(frozen=True)
class Plan:
    """What a study does.

    Attributes:
        study: its name; survives restarts of either side.
        sites: public key, in hexadecimal, of each site by name.
        method, options: what the sites run.
        layout: the tensors that travel.
        schedule: of the local loop; ``schedule.steps`` is each site's steps in all.
        rounds: exchanges, over which the steps before the last adaptation are spread evenly.
        personal_steps: of the last adaptation, after the last exchange, which stays at the site.
        quorum: least number of valid updates of a round.
        largest_norm: an update with a larger L2 norm is refused.
        seed: of the study; each site's own seed derives from it.
        lifetime: seconds for which an order is valid.
    """

    study: str
    sites: Mapping[str, str]
    method: str
    options: Mapping[str, bool | int | float | str]
    layout: Layout
    schedule: Schedule
    rounds: int
    personal_steps: int = 0
    quorum: int = 1
    largest_norm: float = 1e3
    seed: int = 0
    lifetime: int = 3600

    @property
    def total(self) -> int:
        """Local steps of each site in all."""
        return self.schedule.steps or 0

    def steps_before(self, number: int) -> int:
        """Local steps that lie before round ``number`` (from 1); for ``rounds + 1`` those of all rounds."""
        return (self.total - self.personal_steps) * (number - 1) // self.rounds


@dataclass(frozen=True)
class Refused:
    """An order that brought no update: the site's own code, or why its reply was not accepted."""

    round: int
    site: str
    code: str


@dataclass
class Provider:
    """Runs a plan over a transport.

    Attributes:
        plan: the study.
        key: signs the orders.
        transport: reaches the sites.
        stages: of a server step.
        seed_of: the seed of a site, from the plan's seed and the site's name.
        refusals: what was refused so far, by whom and why.
    """

    plan: Plan
    key: SigningKey
    transport: Transport
    stages: tuple[ServerStage, ...]
    seed_of: Callable[[int, str], int]
    clock: Callable[[], float] = time.time
    refusals: list[Refused] = field(default_factory=list)

    def run(self, tensors: Tensor, after_round: Callable[[int, Tensor], None] | None = None) -> Tensor:
        """All rounds, then the order to finish.

        Args:
            tensors: the signed bundle's, flat float32 [P].
            after_round: called with the round's number and the new tensors.

        Returns:
            The last tensors, flat float32 [P].

        Raises:
            QuorumError: too few valid updates in a round.
        """
        state = ServerState()
        for number in range(1, self.plan.rounds + 1):
            tensors, state = self.round(number, tensors, state)
            if after_round is not None:
                after_round(number, tensors)
        self.finish(tensors)
        return tensors

    def round(self, number: int, tensors: Tensor, state: ServerState) -> tuple[Tensor, ServerState]:
        """One exchange.

        Raises:
            QuorumError: too few valid updates.
        """
        answered = 0

        def updates() -> Iterator[Received]:  # one at a time: the peak does not grow with the sites
            nonlocal answered
            for site in self.plan.sites:
                received = self._ask(number, site, "train", tensors)
                if received is not None:
                    answered += 1
                    yield received

        after = server_step(self.stages, tensors, updates(), state)
        if answered < self.plan.quorum:
            raise QuorumError(
                f"Round {number} brought {answered} valid updates, and {self.plan.quorum} are needed.",
                self._blame(number),
            )
        return after

    def finish(self, tensors: Tensor) -> None:
        """Send the last tensors; each site makes its personal model of them and answers without a tensor."""
        for site in self.plan.sites:
            self._ask(self.plan.rounds + 1, site, "finish", tensors)

    def _ask(self, number: int, site: str, phase: Literal["train", "finish"], tensors: Tensor) -> Received | None:
        order = self.order(number, site, phase, tensors)
        try:
            reply = self.transport.deliver(site, wire.encode(order, tensors, self.key))
            return accept(reply, order, site, self.plan)
        except WireError as error:
            self.refusals.append(Refused(number, site, str(error)))
            return None

    def order(self, number: int, site: str, phase: Literal["train", "finish"], tensors: Tensor) -> Order:
        """The order of one round for one site.

        Raises:
            ConfigError: the plan asks for what the schema of orders does not hold.
        """
        try:
            return self._order(number, site, phase, tensors)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where, what = ".".join(str(part) for part in first["loc"]), first["msg"]
            raise ConfigError(
                f"No order can hold '{where}' = {first['input']!r}: {what[0].lower()}{what[1:]}.",
                "Name sites with letters, digits, '.', '_' and '-', and choose a smaller schedule.",
            ) from None

    def _order(self, number: int, site: str, phase: Literal["train", "finish"], tensors: Tensor) -> Order:
        plan, start = self.plan, self.plan.steps_before(number)
        steps = plan.personal_steps if phase == "finish" else plan.steps_before(number + 1) - start
        return Order(
            protocol=PROTOCOL,
            study=plan.study,
            round=number,
            attempt=0,
            site=site,
            phase=phase,
            method=plan.method,
            options=dict(plan.options),
            work=_work(plan.schedule, start, steps, plan.total),
            seed=self.seed_of(plan.seed, site),
            layout=plan.layout,
            tensor_digest=tensor_digest(tensors),
            expires=int(self.clock()) + plan.lifetime,
        )

    def _blame(self, number: int) -> str:
        reasons = [f"{r.site}: {r.code}" for r in self.refusals if r.round == number]
        return "Ask these sites: " + "; ".join(reasons) + "." if reasons else "Invite more sites."


def accept(reply: bytes, order: Order, site: str, plan: Plan) -> Received:
    """Validate one reply against its order.

    Raises:
        WireError: it is refused; the message is the reason, and the site's code where the site refused.
    """
    hint = "The round goes on without this site."
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
    expected = elements(order.layout) if order.phase == "train" else 0
    if len(flat) != expected:
        raise WireError("The update has another length than the order's layout.", hint)
    norm = float(flat.double().norm())
    if not norm <= largest_norm:  # also refuses NaN
        raise WireError("The update is not finite or its norm is too large.", hint)


def _work(schedule: Schedule, start: int, steps: int, total: int) -> Work:
    return Work(
        steps=steps,
        start=start,
        total=total,
        batch_size=schedule.batch_size,
        learning_rate=schedule.learning_rate,
        momentum=schedule.momentum,
        weight_decay=schedule.weight_decay,
        decay=schedule.decay,
        input_noise=schedule.input_noise,
        backbone_scale=schedule.backbone_scale,
    )
