"""A site: order bytes in, reply bytes out. Simulation and network call the same method."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fedser.bundle.keys import SigningKey
from fedser.errors import FedserError, WireError
from fedser.federation import audit_entries, wire
from fedser.federation.audit import AuditLog
from fedser.federation.gate import Gate
from fedser.federation.layout import elements, network, unpack
from fedser.federation.local import adapt_locally, assemble
from fedser.federation.policy import Policy
from fedser.federation.private import adapt_privately, inside, ready
from fedser.federation.schema import Code, Order, Refusal
from fedser.federation.secure_schema import Asked, KeysOrder
from fedser.federation.secure_site import SecureSite
from fedser.federation.secure_state import SecureState
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData, SiteStage, SiteState, SiteWork, beginning, site_step
from fedser.models import EmotionClassifier
from fedser.privacy.ledger import Ledger


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
        stages: of a site step; under a privacy unit inside the site, private steps take the place of ordinary ones.
        clock: seconds since 1970.
        secure: where it stopped in a masked sum.
        keep_secure: stores that state, as ``keep`` does.
        ledger: the privacy budget; :func:`fedser.privacy.ledger.open_ledger` opens it, in memory for simulations.

    Raises:
        PrivacyError: the policy has a privacy unit, and there is no ledger of it, or the data do not suit it.
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
        ledger: Ledger | None = None,
        secure: SecureState | None = None,
        keep_secure: Callable[[SecureState], None] | None = None,
    ) -> None:
        self.name = name
        self.data = data
        self.state = state or SiteState(study)
        self._key = key
        self._provider = provider
        self._keep = keep
        self._private = inside(policy.privacy)
        ready(policy, data)
        private = adapt_privately(policy.privacy) if self._private else adapt_locally
        self._stages = tuple(private if stage is adapt_locally else stage for stage in stages)
        self._gate = Gate(name, policy, data, audit or AuditLog(), clock, ledger)
        masking = policy.privacy.masking
        self._secure = SecureSite(name, masking, key, secure or SecureState(study=study), keep_secure, clock)

    def answer(self, data: bytes) -> bytes:
        """Carry out one order, or one step of a masked sum, or refuse it with a code.

        Args:
            data: the order as it came.

        Returns:
            A signed update or refusal. A repeated order gets the bytes of the first answer.

        Raises:
            OutputError: the state, the ledger or the audit log cannot be written; nothing may leave then.
            LedgerError: the privacy budget's ledger is damaged or behind; nothing may leave then.
        """
        try:
            opened = wire.read(data, self._provider, self._gate.limits)
        except WireError:
            return self._refuse(Code.MALFORMED, None)
        order, flat = opened.message, opened.flat
        if isinstance(order, Asked):
            return self._masking(order)
        if not isinstance(order, Order):
            return self._refuse(Code.MALFORMED, None)
        digest = wire.order_digest(order)
        if digest == self.state.order_digest:
            self._gate.note(audit_entries.resent(order, digest, self.state.reply))
            return self.state.reply
        code = self._gate.admit(order, flat, self.state) or self._secure.admit(order) or self._gate.charge(order)
        if code is not None:
            return self._refuse(code, digest)
        work, withheld = self._carried_out(order, flat)
        if work is not None and order.masking is not None:
            return self._masked(order, digest, work, withheld)
        try:
            bounded = self._gate.bound(order, work.update, work.scalars) if work is not None else None
        except (FedserError, ValueError):
            bounded = None
        if work is None or bounded is None:
            return self._refuse(Code.FAILED, digest)
        update, payload = bounded
        reply = wire.encode(update, payload, self._key)
        self._take_up(_after(order, digest, work.state, reply))
        self._gate.note(audit_entries.update(order, update, payload, reply), order, withheld)
        return reply

    def _masked(self, order: Order, digest: str, work: SiteWork, withheld: Code | None) -> bytes:
        """The update under its masks. The secrets go before the state is kept: there is no second payload."""
        integers = self._gate.integers(order, work.update)
        if integers is None:
            return self._refuse(Code.FAILED, digest)
        update, payload, secure = self._secure.masked(order, integers)
        reply = wire.encode(update, payload, self._key)
        self._secure.keep(secure)
        self._take_up(_after(order, digest, work.state, reply))
        self._gate.note(audit_entries.masked(order, update, reply), order, withheld)
        return reply

    def _masking(self, asked: Asked) -> bytes:
        """One step of a masked sum that has no update in it."""
        digest, code = wire.order_digest(asked), None
        if isinstance(asked, KeysOrder) and self._secure.state.stored(digest) is None:
            code = self._gate.addressed(asked, self.state)
        said = code or self._secure.answer(asked)
        if isinstance(said, Code):
            return self._refuse(said, digest)
        self._gate.note(audit_entries.said(asked, said))
        return said

    def _take_up(self, state: SiteState) -> None:
        if self._keep is not None:
            self._keep(state)
        self.state = state

    def _carried_out(self, order: Order, flat: torch.Tensor) -> tuple[SiteWork | None, Code | None]:
        """The order's work; under differential privacy never None: zeros, and the code of what stood against it."""
        begun = SiteWork(order, flat, self.data, beginning(order, self.state), self._gate.kept(order))
        code = self._gate.withheld(order, flat, self.state) if self._gate.blind else None
        if code is None:
            try:
                return site_step(self._stages, begun), None
            except (FedserError, ValueError, RuntimeError):  # the reason stays here, the code is all that leaves
                code = Code.FAILED
        return (untouched(begun) if self._gate.blind else None), code

    def model(self, tensors: dict[str, torch.Tensor]) -> EmotionClassifier:
        """The classifier with the federation's tensors and this site's own ones, its statistics recomputed.

        Under a privacy unit inside the site it keeps the published statistics, with which it was trained.
        """
        model = assemble(self.data, self.state.own, network(tensors))
        if not self._private:
            settle(model, self.data.x)
        return model

    def personal(self) -> EmotionClassifier | None:
        """The site's own final model; None before the order to finish."""
        return assemble(self.data, self.state.personal) if self.state.personal else None

    def _refuse(self, code: Code, digest: str | None) -> bytes:
        self._gate.note(audit_entries.refusal(code, digest))
        return wire.encode(Refusal(protocol=1, order_digest=digest, code=code), torch.zeros(0), self._key)


def untouched(work: SiteWork) -> SiteWork:
    """Work of an order that this site's data had no part in: zeros, or the joint model as the personal one."""
    if work.order.phase == "train":
        return replace(work, update=torch.zeros(elements(work.order.layout)))
    received = network(unpack(work.tensors, work.order.layout))
    personal = assemble(work.data, work.state.own, received).state_dict()
    kept = {name: tensor.detach().cpu().clone() for name, tensor in personal.items()}
    return replace(work, update=torch.zeros(0), state=replace(work.state, personal=kept))


def _after(order: Order, digest: str, state: SiteState, reply: bytes) -> SiteState:
    return replace(
        state,
        round=order.round,
        attempt=order.attempt,
        rounds=state.rounds + 1,
        order_digest=digest,
        reply=reply,
    )
