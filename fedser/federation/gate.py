"""The gate: the last hop on the site before the wire. It belongs to the site, not to the study.

Inbound, an order is checked against the site's policy and the signed bundle; outbound, the update is bounded,
recorded in the audit log and only then handed over. A refusal is a code; the site keeps working.

Under differential privacy the budget is charged before anything is computed, and whether and how a site answers
depends on what the provider already knows alone: what only the data can tell (too few utterances, weights that single
some out, a step that failed) makes the update zeros, which leave clipped and noised like any other.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.adapt import make
from fedser.errors import FedserError
from fedser.federation import firing, secure_update, wire
from fedser.federation.audit import AuditLog
from fedser.federation.cashier import Cashier
from fedser.federation.compress import Packed, unpacked, within
from fedser.federation.layout import PEER, elements, network, norm, tensor_digest, unpack
from fedser.federation.local import assemble
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Order, Scalars, Update
from fedser.federation.secure_schema import KeysOrder
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData, SiteState, beginning
from fedser.privacy.ledger import Ledger

NORM_FLOOR = 0.1  # layers that start at zero (biases) may move as far as if their values were 0.1


class Gate:
    """Checks what comes in and bounds what goes out, by one site's policy.

    Args:
        site: the site's name; orders for others are refused.
        policy: the site's.
        data: for the signed bundle's weights and the amount of data.
        audit: where each message is recorded before it leaves.
        clock: seconds since 1970.
        ledger: the budget, where the policy's privacy has a unit.

    Raises:
        PrivacyError: the policy has a unit and there is no ledger of it.
    """

    def __init__(
        self,
        site: str,
        policy: Policy,
        data: LocalData,
        audit: AuditLog,
        clock: Callable[[], float] = time.time,
        ledger: Ledger | None = None,
    ) -> None:
        self._cashier = Cashier(policy.privacy, ledger)
        self._site = site
        self._policy = policy
        self._data = data
        self._audit = audit
        self._clock = clock
        self._signed = {name: p.detach().cpu() for name, p in data.model.named_parameters()}
        self._peer = frozenset({PEER}) if policy.shares_peer and data.linear is not None else frozenset[str]()
        if data.linear is not None and self._peer:
            self._signed[PEER] = data.linear.weight.detach().cpu()

    @property
    def limits(self) -> wire.Limits:
        """Message sizes beyond which nothing is parsed: the bundle's own number of parameters."""
        return wire.Limits(elements=sum(tensor.numel() for tensor in self._signed.values()))

    def admit(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        """Check an order that is on the schema and correctly signed; None when it may be carried out."""
        return (
            self.addressed(order, state)
            or self._work(order, state)
            or self._method(order)
            or self._layout(order)
            or self._weights(order, flat)
            or self._cashier.sound(order)
            or self._fits(order)
            or (None if self.blind else self.withheld(order, flat, state))
        )

    @property
    def blind(self) -> bool:
        """Whether nothing that only the data can tell may decide what is answered."""
        return self._policy.privacy.on

    def withheld(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        """Why the site's data may not be computed on with these weights, which only the data can tell; None if it may.

        Under a unit inside the site there is no such reason: its noise bounds what any weights can read out.
        """
        if self._policy.privacy.unit in ("speaker", "utterance"):
            return None
        return self._enough_data() or self._traps(order, flat, state)

    def charge(self, order: Order) -> Code | None:
        """Charge the budget for an order that may be carried out, before it is; a code where the budget is spent.

        Raises:
            LedgerError: the ledger is damaged or behind; nothing may leave.
            OutputError: it cannot be written.
        """
        return self._cashier.charge(order, self._fingerprint)

    @cached_property
    def _fingerprint(self) -> str:
        return tensor_digest(self._data.x.reshape(-1))

    def addressed(self, order: Order | KeysOrder, state: SiteState) -> Code | None:
        """Check that an order, or the beginning of a masked sum, is new, for this site and study, and in its hours."""
        if order.expires < self._clock():
            return Code.EXPIRED
        if order.site != self._site:
            return Code.OTHER_SITE
        if order.study != state.study:
            return Code.OTHER_STUDY
        if (order.round, order.attempt) <= (state.round, state.attempt):
            return Code.STALE
        return None if self._policy.at_work(time.localtime(self._clock()).tm_hour) else Code.HOURS

    def _work(self, order: Order, state: SiteState) -> Code | None:
        work, policy, student = order.work, self._policy, order.student
        least = policy.steps_min if order.phase == "train" else 0
        allowed = (
            least <= (work if student is None else student).steps <= policy.steps_max
            and work.steps <= policy.steps_max
            and (student is None or student.total <= policy.total_max)
            and (student is None or student.learning_rate <= policy.learning_rate_max)
            and 1 <= work.total <= policy.total_max
            and policy.batch_min <= work.batch_size <= policy.batch_max
            and 0 < work.learning_rate <= policy.learning_rate_max
            and order.encoding in policy.encodings
            and (order.peer is None or policy.peer_steps_min <= order.peer.steps)
        )
        if not allowed:
            return Code.WORK
        return Code.ROUNDS_SPENT if state.rounds >= policy.rounds else None

    def _method(self, order: Order) -> Code | None:
        if self._policy.methods is not None and order.method not in self._policy.methods:
            return Code.METHOD
        try:
            settings = make(order.method, order.options).settings
        except FedserError:
            return Code.METHOD
        return None if self._policy.allows(order.method, settings) else Code.METHOD

    def _layout(self, order: Order) -> Code | None:
        if order.phase == "train" and elements(order.layout) > (self._policy.values_max or math.inf):
            return Code.LAYOUT
        for name, shape in order.layout:
            if name not in self._signed or tuple(self._signed[name].shape) != shape:
                return Code.LAYOUT
        names = {name for name, _ in order.layout}
        if (order.peer is not None) != (PEER in names):
            return Code.LAYOUT
        first = self._data.model.first_layer()
        allowed = self._policy.may_leave(frozenset(self._signed) - self._peer, first) | self._peer
        if order.phase == "finish":  # its answer holds no tensor, but no order may set a first layer that stays
            allowed |= frozenset(self._signed) - frozenset(first)
        return None if names <= allowed else Code.LAYOUT

    def _weights(self, order: Order, flat: Tensor) -> Code | None:
        if not bool(torch.isfinite(flat).all()):
            return Code.NOT_FINITE
        for name, tensor in unpack(flat, order.layout).items():
            signed = self._signed[name].double()
            floor = NORM_FLOOR * math.sqrt(signed.numel())
            if float((tensor.double() - signed).norm()) > self._policy.radius * max(float(signed.norm()), floor):
                return Code.RADIUS
        return None

    def _enough_data(self) -> Code | None:
        policy, data = self._policy, self._data
        enough = len(data.x) >= policy.utterances_min and data.speakers >= policy.speakers_min
        return None if enough else Code.TOO_LITTLE_DATA

    def _traps(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        policy, x = self._policy, self._data.x
        if len(x) < firing.FEWEST or not network(unpack(flat, order.layout)):
            return None  # a network that stays here carries nothing out
        model = assemble(self._data, beginning(order, state).own, network(unpack(flat, order.layout)))
        settle(model, x)
        found = firing.layers(model, x, policy.trap_few)
        bad = firing.suspicious(found, self._signed_firing, len(x), policy.trap_alone, policy.trap_pairs)
        return Code.TRAP if bad else None

    @cached_property
    def _signed_firing(self) -> tuple[firing.Layer, ...]:
        model = assemble(self._data)
        settle(model, self._data.x)
        return firing.layers(model, self._data.x, self._policy.trap_few)

    def kept(self, order: Order) -> frozenset[str]:
        """Parameters that training must leave as the bundle has them: those that do not travel, by policy."""
        if self._policy.own_layers == "adapt":
            return frozenset()
        return frozenset(self._signed) - self._peer - {name for name, _ in order.layout}

    def bound(self, order: Order, flat: Tensor, scalars: Scalars | None) -> tuple[Update, Tensor] | None:
        """The update as it may leave: clipped, noised, encoded, counts and scalars by policy; None if it must not.

        Noise comes last but for the encoding, which works on the noised values alone. Under differential privacy
        neither a count nor a scalar leaves, whatever else the policy says.

        Args:
            order: the order that it answers.
            flat: the change, float32 [P]; empty for an order to finish.
            scalars: the site's figures, or None.

        Returns:
            The update and its payload, as it travels.
        """
        expected = elements(order.layout) if order.phase == "train" else 0
        noisy = self._policy.privacy.unit == "site" and expected > 0
        if tuple(flat.shape) != (expected,) or not (noisy or bool(torch.isfinite(flat).all())):
            return None
        if noisy:
            packed: Packed | None = self._cashier.noised(order, flat)
        else:
            packed = within(flat, order.layout, order.encoding, self._policy.clip)
        if packed is None:
            return None
        tells = order.phase == "train" and not self.blind
        update = Update(
            protocol=1,
            order_digest=wire.order_digest(order),
            tensor_digest=tensor_digest(packed.payload),
            utterances=self._policy.coarse(len(self._data.x)) if tells else None,
            scalars=_rounded(scalars) if scalars and tells and self._policy.scalars else None,
            encoding=order.encoding,
            scales=packed.scales,
        )
        return update, packed.payload

    def integers(self, order: Order, flat: Tensor) -> NDArray[np.int64] | None:
        """The update as a masked sum takes it: clipped, in grid steps, noised; int64 [P], None if it must not leave."""
        if order.masking is None or tuple(flat.shape) != (elements(order.layout),):
            return None
        if self._policy.privacy.unit == "site":
            self._cashier.spend()
        elif not bool(torch.isfinite(flat).all()):
            return None
        return secure_update.integers(flat, self._policy, order.masking, self._cashier.share(order))

    def _fits(self, order: Order) -> Code | None:
        return None if secure_update.fits(order, self._policy, self._cashier.share(order)) else Code.MASK

    def note(self, entry: Mapping[str, Any], order: Order | None = None, withheld: Code | None = None) -> None:
        """Write down what is about to leave of a masked sum; see :mod:`fedser.federation.secure_audit`.

        Raises:
            OutputError: it cannot be written, and then nothing may leave.
        """
        told = {} if order is None else self._cashier.told(order)
        kept = {} if withheld is None else {"withheld": withheld.name}
        self._audit.append({**told, **kept, "time": int(self._clock()), **entry})

    def record(self, order: Order, update: Update, payload: Tensor, reply: bytes, withheld: Code | None = None) -> None:
        """Write what is about to leave into the audit log, through to the disk.

        Raises:
            OutputError: it cannot be written, and then nothing may leave.
        """
        self._audit.append(
            {
                **self._cashier.told(order),
                **({} if withheld is None else {"withheld": withheld.name}),
                "time": int(self._clock()),
                "event": "update" if order.phase == "train" else "finished",
                "study": order.study,
                "round": order.round,
                "attempt": order.attempt,
                "order": update.order_digest,
                "bytes": len(reply),
                "sha256": hashlib.sha256(reply).hexdigest(),
                "tensors": len(order.layout) if len(payload) else 0,
                "values": len(payload),
                "encoding": update.encoding,
                "norm": round(norm(unpacked(update, payload)), 6),
                "utterances": update.utterances,
                "scalars": update.scalars is not None,
            }
        )

    def record_repeat(self, order: Order, digest: str, reply: bytes) -> None:
        """Write down that the stored answer to an order is about to leave, once more or after a crash.

        Raises:
            OutputError: it cannot be written, and then nothing may leave.
        """
        self._audit.append(
            {
                "time": int(self._clock()),
                "event": "resent",
                "study": order.study,
                "round": order.round,
                "attempt": order.attempt,
                "order": digest,
                "bytes": len(reply),
                "sha256": hashlib.sha256(reply).hexdigest(),
            }
        )

    def record_refusal(self, code: Code, digest: str | None) -> None:
        """Write down that an order was refused.

        Raises:
            OutputError: it cannot be written.
        """
        self._audit.append({"time": int(self._clock()), "event": "refusal", "code": code.name, "order": digest})


def _rounded(scalars: Scalars) -> Scalars:
    return replace(
        scalars,
        loss=round(scalars.loss, 3),
        confidence=round(scalars.confidence, 3),
        diversity=round(scalars.diversity, 3),
    )
