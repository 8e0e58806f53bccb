"""A site: order bytes in, reply bytes out. Simulation and network call the same method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fedser.bundle.keys import SigningKey
from fedser.errors import FedserError, WireError
from fedser.federation import wire
from fedser.federation.audit import AuditLog
from fedser.federation.gate import Gate
from fedser.federation.layout import network
from fedser.federation.local import adapt_locally, assemble
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Order, Refusal
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData, SiteStage, SiteState, SiteWork, beginning, site_step
from fedser.models import EmotionClassifier


class Site:
    """One data holder, between the wire and its own data.

    Args:
        name: the site's name in the study.
        study: the federation's.
        data: what it adapts on and never sends.
        policy: what it allows.
        key: signs its replies.
        provider: public key of the provider's orders, in hexadecimal.
        audit: the log of what leaves; in memory when None.
        state: where it stopped; the beginning of the study when None.
        keep: stores the new state (durably, on a node) before the answer is recorded and leaves. A crash after it
            is answered with the stored bytes: no finished order is computed again, and nothing leaves unrecorded.
        stages: of a site step.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        name: str,
        study: str,
        data: LocalData,
        policy: Policy,
        key: SigningKey,
        provider: str,
        *,
        audit: AuditLog | None = None,
        state: SiteState | None = None,
        keep: Callable[[SiteState], None] | None = None,
        stages: Sequence[SiteStage] = (adapt_locally,),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.data = data
        self.state = state or SiteState(study)
        self._key = key
        self._provider = provider
        self._keep = keep
        self._stages = tuple(stages)
        self._gate = Gate(name, policy, data, audit or AuditLog(), clock)

    def answer(self, data: bytes) -> bytes:
        """Carry out one order, or refuse it with a code.

        Args:
            data: the order as it came.

        Returns:
            A signed update or refusal. A repeated order gets the bytes of the first answer.

        Raises:
            OutputError: the state or the audit log cannot be written; nothing may leave then.
        """
        try:
            order, flat = wire.decode_order(data, self._provider, self._gate.limits)
        except WireError:
            return self._refuse(Code.MALFORMED, None)
        digest = wire.order_digest(order)
        if digest == self.state.order_digest:
            self._gate.record_repeat(order, digest, self.state.reply)
            return self.state.reply
        code = self._gate.admit(order, flat, self.state)
        if code is not None:
            return self._refuse(code, digest)
        try:
            state = beginning(order, self.state)
            work = site_step(self._stages, SiteWork(order, flat, self.data, state, self._gate.kept(order)))
            bounded = self._gate.bound(order, work.update, work.scalars)
        except (FedserError, ValueError, RuntimeError):  # the reason stays here, the code is all that leaves
            return self._refuse(Code.FAILED, digest)
        if bounded is None:
            return self._refuse(Code.FAILED, digest)
        update, payload = bounded
        reply = wire.encode(update, payload, self._key)
        after = _after(order, digest, work.state, reply)
        if self._keep is not None:
            self._keep(after)
        self.state = after
        self._gate.record(order, update, payload, reply)
        return reply

    def model(self, tensors: dict[str, torch.Tensor]) -> EmotionClassifier:
        """The classifier with the federation's tensors and this site's own ones, its statistics recomputed."""
        model = assemble(self.data, self.state.own, network(tensors))
        settle(model, self.data.x)
        return model

    def personal(self) -> EmotionClassifier | None:
        """The site's own final model; None before the order to finish."""
        return assemble(self.data, self.state.personal) if self.state.personal else None

    def _refuse(self, code: Code, digest: str | None) -> bytes:
        self._gate.record_refusal(code, digest)
        return wire.encode(Refusal(protocol=1, order_digest=digest, code=code), torch.zeros(0), self._key)


def _after(order: Order, digest: str, state: SiteState, reply: bytes) -> SiteState:
    return replace(
        state,
        round=order.round,
        attempt=order.attempt,
        rounds=state.rounds + 1,
        order_digest=digest,
        reply=reply,
    )
