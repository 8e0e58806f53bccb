"""The part of the gate that keeps a site's privacy: is an order sound, is there budget, and the noise itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

from fedser.adapt import Method
from fedser.errors import BudgetError, PrivacyError
from fedser.federation.compress import Packed, compress
from fedser.federation.layout import elements
from fedser.federation.schema import Code, Order
from fedser.privacy.accountant import noise_of
from fedser.privacy.group_losses import supports
from fedser.privacy.ledger import Ledger
from fedser.privacy.settings import PrivacySettings
from fedser.privacy.site_unit import noise_of_sum, released, share_std
from fedser.privacy.validity import Facts, check

_LARGEST = 60_000.0  # float16 holds 65,504


class Cashier:
    """Charges, and noises what was charged.

    Args:
        privacy: of the site's policy.
        ledger: its budget; may be None where nothing is noised.

    Raises:
        PrivacyError: something is to be noised and there is no ledger, or one of another unit.
    """

    def __init__(self, privacy: PrivacySettings, ledger: Ledger | None) -> None:
        if privacy.on and (ledger is None or ledger.unit != privacy.unit):
            raise PrivacyError(
                f"The policy's privacy unit is '{privacy.unit}', and no ledger keeps its budget.",
                "Open the ledger of this policy, or set privacy.unit: none.",
            )
        self._privacy = privacy
        self._ledger = ledger
        self._number: int | None = None

    def sound(self, order: Order, method: Method | None) -> Code | None:
        """A code where the order, and the method that it asks for, would not be sound under the privacy settings."""
        try:
            check(
                self._privacy,
                Facts(
                    method=order.method,
                    groupwise=method is not None and supports(method),
                    peer=order.peer is not None,
                    student=order.student is not None,
                ),
            )
            if self._privacy.on and order.phase == "train":
                self.price(order)
                self.share(order)
        except (PrivacyError, ValueError):
            return Code.PRIVATE
        return None

    def price(self, order: Order) -> tuple[float, float, int]:
        """What an order costs, as noise, rate and steps of a charge.

        Raises:
            ValueError: a share of the noise would be too narrow.
        """
        if self._privacy.unit != "site":
            return self._noise, self._privacy.rate, order.work.steps
        if self._privacy.form == "local":
            return self._noise, 1.0, 1
        if order.masking is None:
            raise ValueError("a share of the noise is for a masked sum")
        values, honest = elements(order.layout), self._privacy.masking.honest
        return noise_of_sum(self._noise, self.share(order), values, honest), 1.0, 1

    def share(self, order: Order) -> float:
        """Standard deviation, in the order's grid steps, of what this site adds to its part of a masked sum.

        All of the noise in the local form, a share in the central one; 0 where the site is no unit or no mask is asked
        for. The share's variance is the target's divided by the number of honest sites that the site's own policy
        names, never by one that the provider tells.

        Raises:
            ValueError: the share would be too narrow for the grid.
        """
        if self._privacy.unit != "site" or order.masking is None:
            return 0.0
        terms, central = order.masking.terms, self._privacy.form == "central"
        clip, honest = min(self._privacy.clip, terms.clip), self._privacy.masking.honest if central else 1
        return share_std(clip, self._noise, elements(order.layout), honest, 2.0**-terms.grid)

    def spend(self) -> None:
        """Use up what was charged last, for the one update that it pays for.

        Raises:
            PrivacyError: nothing was charged.
        """
        if self._number is None:
            raise PrivacyError("An update was to leave that nothing was charged for.", "Charge the order first.")
        self._number = None

    def charge(self, order: Order, fingerprint: str) -> Code | None:
        """Charge an order to train, through to the disk; a code where the budget has no room for it.

        Raises:
            LedgerError: the ledger is damaged or behind.
            OutputError: it cannot be written.
        """
        self._number = None
        if self._ledger is None or order.phase != "train":
            return None
        noise, rate, steps = self.price(order)
        try:
            self._number = self._ledger.charge(
                noise,
                rate,
                steps,
                study=order.study,
                round=order.round,
                attempt=order.attempt,
                fingerprint=fingerprint,
            )
        except BudgetError:
            return Code.BUDGET
        return None

    def noised(self, order: Order, flat: Tensor) -> Packed:
        """An update of the site unit as it travels: clipped, noised, and only then encoded.

        Args:
            order: the order that it answers.
            flat: [P]; whatever is not finite counts as zeros.

        Raises:
            PrivacyError: nothing was charged for it.
        """
        self.spend()
        noisy = released(flat, self._privacy.clip, self._noise)
        return compress(noisy.clamp(-_LARGEST, _LARGEST), order.layout, order.encoding)

    def told(self, order: Order) -> Mapping[str, Any]:
        """What the audit log says of the privacy of an answer."""
        if not self._privacy.on or order.phase != "train":
            return {}
        told = {"unit": self._privacy.unit, "clip": self._privacy.clip, "noise": self._noise}
        return {"privacy": {**told, "charges": 0 if self._ledger is None else len(self._ledger)}}

    @cached_property
    def _noise(self) -> float:
        return noise_of(self._privacy)
