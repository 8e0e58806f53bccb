"""The budget of attacked sites: the same charges at all of them are counted once."""

from __future__ import annotations

from fedser.errors import BudgetError
from fedser.privacy.accountant import Accountant, Charge
from fedser.privacy.ledger import Ledger
from fedser.privacy.settings import PrivacySettings

Verdicts = dict[tuple[Charge, ...], bool]


class Purse(Ledger):
    """A ledger in memory whose answers all sites of one policy share: a thousand sites ask the accountant once.

    Args:
        privacy: of the policy.
        site: the site's name.
        verdicts: whether each series of charges fits, shared; None lets everything pass, for what is no release (a
            share of a sum) and for what an attacker runs on his own sites.
    """

    def __init__(self, privacy: PrivacySettings, site: str, verdicts: Verdicts | None) -> None:
        super().__init__(None, site, privacy.unit, privacy.epsilon, privacy.delta)
        self._privacy = privacy
        self._verdicts = verdicts
        self._made: tuple[Charge, ...] = ()

    def charge(
        self, noise: float, rate: float, steps: int, *, study: str, round: int, attempt: int, fingerprint: str = ""
    ) -> int:
        """See :meth:`fedser.privacy.ledger.Ledger.charge`.

        Raises:
            BudgetError: it would go beyond the budget; nothing is charged.
        """
        series = (*self._made, Charge(noise, rate, steps))
        if self._verdicts is not None:
            if series not in self._verdicts:
                whole = Accountant(discrete=self._privacy.unit == "site", charges=series)
                self._verdicts[series] = whole.fits(self._privacy.epsilon, self._privacy.delta)
            if not self._verdicts[series]:
                raise BudgetError("The budget has no room for this.", "The attack goes on with what it has.")
        self._made = series
        return len(series)

    def __len__(self) -> int:
        """Charges so far."""
        return len(self._made)
