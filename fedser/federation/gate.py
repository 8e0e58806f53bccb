"""The gate: the last hop on the site before the wire. It belongs to the site, not to the study.

Inbound, an order is checked against the site's policy and the signed bundle; outbound, the update is bounded,
recorded in the audit log and only then handed over. A refusal is a code; the site keeps working.

Under differential privacy the budget is charged before anything is computed, and whether and how a site answers
depends on what the provider already knows alone: what only the data can tell (too few utterances, weights that single
some out, a step that failed) makes the update zeros, which leave clipped and noised like any other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.federation import secure_update, wire
from fedser.federation.admission import Admission
from fedser.federation.audit import AuditLog
from fedser.federation.cashier import Cashier
from fedser.federation.compress import Packed, within
from fedser.federation.layout import elements, tensor_digest
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Order, Scalars, Update
from fedser.federation.secure_schema import KeysOrder
from fedser.federation.stages import LocalData, SiteState
from fedser.privacy.ledger import Ledger


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
        self._admission = Admission(site, policy, data)
        self._policy = policy
        self._data = data
        self._audit = audit
        self._clock = clock

    @property
    def limits(self) -> wire.Limits:
        """Message sizes beyond which nothing is parsed: the bundle's own number of parameters."""
        return wire.Limits(elements=sum(tensor.numel() for tensor in self._admission.signed.values()))

    def admit(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        """Check an order that is on the schema and correctly signed; None when it may be carried out."""
        inbound = self._admission
        return (
            self.addressed(order, state)
            or inbound.terms(order, state)
            or (Code.METHOD if (method := inbound.method(order)) is None else None)
            or inbound.tensors(order, flat)
            or self._cashier.sound(order, method)
            or self._fits(order)
            or (None if self.blind else self.withheld(order, flat, state))
        )

    def addressed(self, order: Order | KeysOrder, state: SiteState) -> Code | None:
        """Check that an order, or the beginning of a masked sum, is new, for this site and study, and in its hours."""
        return self._admission.addressed(order, state, self._clock())

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
        return self._admission.of_data(order, flat, state)

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

    def kept(self, order: Order) -> frozenset[str]:
        """Parameters that training must leave as the bundle has them: those that do not travel, by policy."""
        if self._policy.own_layers == "adapt":
            return frozenset()
        return self._admission.network - {name for name, _ in order.layout}

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
        """Write what is about to leave into the audit log, through to the disk.

        Args:
            entry: see :mod:`fedser.federation.audit_entries`.
            order: the one that a fresh update answers, for what the log says of its privacy.
            withheld: why the data had no part in the update.

        Raises:
            OutputError: it cannot be written, and then nothing may leave.
        """
        told = {} if order is None else self._cashier.told(order)
        kept = {} if withheld is None else {"withheld": withheld.name}
        self._audit.append({**told, **kept, "time": int(self._clock()), **entry})


def _rounded(scalars: Scalars) -> Scalars:
    return replace(
        scalars,
        loss=round(scalars.loss, 3),
        confidence=round(scalars.confidence, 3),
        diversity=round(scalars.diversity, 3),
    )
