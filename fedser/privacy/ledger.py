"""The budget of one site and privacy unit, over all rounds, runs, studies and versions of the model.

A charge stands on the disk before what it pays for can be seen, and is never taken back: a crash between charge and
release wastes it, and each release that is computed anew is charged anew. A repeated order is answered with the stored
bytes, and charges nothing. Which data a charge was for is recorded and resets nothing. See
:mod:`fedser.privacy.chain` for what the files notice. If ledger and head are both put back to an older copy, they
cannot notice by themselves: ``expect`` compares with what the site's audit log knows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from fedser.errors import BudgetError, LedgerError
from fedser.privacy.accountant import Accountant, Charge
from fedser.privacy.chain import Chain, Record
from fedser.privacy.settings import PrivacySettings, Unit

_SPENT = "The site can still adapt by itself; a larger budget is its owner's decision, in policy.yaml."
_OTHER = "Give each site a ledger of its own, or the site one name in privacy.site of all its policies."


class Ledger:
    """What was spent, and whether more may be.

    Args:
        path: of the file, shared by all state folders of the site; None keeps it in memory, for simulations.
        site: the owner's name of the site.
        unit: the privacy unit. Charges of other units in the file are left alone.
        epsilon: the budget.
        delta: at which it is counted.
        expect: charges that the file must hold at least.

    Raises:
        LedgerError: the file is torn, altered, behind, or another site's.
        OutputError: it cannot be read.
    """

    def __init__(
        self, path: Path | None, site: str, unit: Unit, epsilon: float, delta: float, *, expect: int = 0
    ) -> None:
        self._chain = Chain(path)
        self._site = site
        self._unit = unit
        self._epsilon = epsilon
        self._delta = delta
        self._expect = expect
        with self._chain.held():
            self._records()

    def charge(
        self, noise: float, rate: float, steps: int, *, study: str, round: int, attempt: int, fingerprint: str = ""
    ) -> int:
        """Write a charge through to the disk, before what it pays for is computed or leaves.

        Args:
            noise, rate, steps: see :class:`~fedser.privacy.accountant.Charge`.
            study, round, attempt: of the order that asks for it.
            fingerprint: of the data.

        Returns:
            The charge's number in the file, from 1.

        Raises:
            BudgetError: it would go beyond the budget; nothing is charged.
            LedgerError: see above.
            OutputError: it cannot be written; nothing may be released then.
        """
        with self._chain.held():
            records = self._records()
            accountant = self._accountant(records)
            accountant.add(Charge(noise, rate, steps))
            if not accountant.fits(self._epsilon, self._delta):
                raise BudgetError(
                    f"The budget of ε = {self._epsilon:g} for the unit '{self._unit}' has no room for this.", _SPENT
                )
            return self._chain.append(
                {
                    "time": int(time.time()),
                    "site": self._site,
                    "unit": self._unit,
                    "noise": noise,
                    "rate": rate,
                    "steps": steps,
                    "study": study,
                    "round": round,
                    "attempt": attempt,
                    "fingerprint": fingerprint,
                },
                records,
            )

    def spent(self) -> float:
        """ε spent so far, at the ledger's δ.

        Raises:
            LedgerError: see above.
        """
        with self._chain.held():
            accountant = self._accountant(self._records())
        return accountant.epsilon(self._delta)

    def left(self) -> float:
        """How far ε may still grow: the budget less what is spent."""
        return max(self._epsilon - self.spent(), 0.0)

    def __len__(self) -> int:
        """Charges of all units in the file."""
        with self._chain.held():
            return len(self._records())

    @property
    def unit(self) -> Unit:
        """The privacy unit that it keeps the budget of."""
        return self._unit

    def _accountant(self, records: Sequence[Record]) -> Accountant:
        own = (record for record in records if record["unit"] == self._unit)
        charges = [Charge(record["noise"], record["rate"], record["steps"]) for record in own]
        return Accountant(discrete=self._unit == "site", charges=charges)

    def _records(self) -> Sequence[Record]:
        records = self._chain.read()
        if len(records) < self._expect:
            raise LedgerError(
                f"The ledger holds {len(records)} charges, the audit log of this site knows of {self._expect}.",
                "Restore the newest copy of the ledger and its head.",
            )
        for record in records:
            if not _sound(record):
                raise LedgerError("The ledger holds a record that this version does not write.", "Update fedser.")
            if record["site"] != self._site:
                raise LedgerError(f"The ledger belongs to the site '{record['site']}', not to '{self._site}'.", _OTHER)
        return records


def open_ledger(privacy: PrivacySettings, site: str, default: Path | None, *, expect: int = 0) -> Ledger | None:
    """The ledger of a policy; None where nothing is noised and so nothing is charged.

    Args:
        privacy: of the policy.
        site: the site's name in the study, where the policy gives it none.
        default: the file where the policy names none; None for memory, in simulations.
        expect: charges that it must hold at least.

    Raises:
        LedgerError: see :class:`Ledger`.
        OutputError: it cannot be read.
    """
    if not privacy.on:
        return None
    path = default if privacy.ledger is None or default is None else privacy.ledger
    return Ledger(path, privacy.site or site, privacy.unit, privacy.epsilon, privacy.delta, expect=expect)


def _sound(record: Record) -> bool:
    """Whether a record can be composed with others."""
    noise, rate, steps = (record.get(name) for name in ("noise", "rate", "steps"))
    return (
        isinstance(noise, float | int)
        and 1e-9 <= noise <= 1e12
        and isinstance(rate, float | int)
        and 0 < rate <= 1
        and isinstance(steps, int)
        and 0 <= steps <= 10**12
        and isinstance(record.get("unit"), str)
        and isinstance(record.get("site"), str)
    )
