"""How much privacy a series of noised releases has cost: ε at a given δ, composed over everything charged.

Two kinds of release, two accountants, both upper bounds:

*Continuous*: each of a public number of groups is in a step with probability ``rate``, independently (Poisson
sampling); the clipped sum gets Gaussian noise of ``noise`` clips. Neighbours differ in one group, present or absent.
Composed by the privacy loss random variable of Opacus (Gopi, Lee and Wutschitz 2021, "Numerical composition of
differential privacy"), whose bound on its own error is added to ε. Above ``LARGEST`` it would take minutes and
overflow; there the Rényi bound of the same mechanism stands (Mironov, Talwar and Zhang 2019).

*Discrete*: a vector of integers gets discrete Gaussian noise of ``noise`` sensitivities. A release is
1/(2·noise²)-zCDP in any dimension (Canonne, Kamath and Steinke 2020, theorem 14); charges add up; the Rényi orders
become (ε, δ) by their proposition 12.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from fedser.privacy.settings import PrivacySettings

LARGEST = 100.0
_EPSILON_ERROR = 0.01
_ORDERS = 1 + np.geomspace(1e-3, 1e5, 1001)
_ROUNDING = 1e-9  # above the floating-point error of a bound
_SUBSAMPLED_ORDERS = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64)) + [80, 96, 128, 256, 512, 1024]
_PRECISION = 1e-4  # relative, of the noise that a target asks for


class Charge(NamedTuple):
    """One kind of release, so many times.

    Attributes:
        noise: standard deviation of the noise, in clips (continuous) or in sensitivities (discrete).
        rate: chance of each group to be in a step; 1 where everything always is.
        steps: releases.
    """

    noise: float
    rate: float
    steps: int


class Accountant:
    """Adds up charges of one kind of mechanism.

    Args:
        discrete: whether the noise is the discrete Gaussian on integers; else it is continuous and sampled.
        charges: to begin with.
    """

    def __init__(self, *, discrete: bool = False, charges: Iterable[Charge] = ()) -> None:
        self._discrete = discrete
        self._steps: dict[tuple[float, float], int] = {}
        for charge in charges:
            self.add(charge)

    def add(self, charge: Charge) -> None:
        """Count releases.

        Raises:
            ValueError: the noise is not positive, the rate no probability, the steps are negative, or a discrete
                release names a rate.
        """
        noise, rate, steps = charge
        usable = 0 < noise < math.inf and 0 < rate <= 1 and steps >= 0
        if not usable or (self._discrete and rate != 1):
            raise ValueError(f"no release that could be accounted for: {charge}")
        self._steps[noise, rate] = self._steps.get((noise, rate), 0) + steps

    @property
    def charges(self) -> tuple[Charge, ...]:
        """What was counted, equal kinds of release together."""
        return tuple(Charge(noise, rate, steps) for (noise, rate), steps in sorted(self._steps.items()) if steps)

    def epsilon(self, delta: float) -> float:
        """ε of everything charged, at ``delta``; 0 before the first charge.

        Raises:
            ValueError: ``delta`` is not between 0 and 1.
        """
        if not 0 < delta < 1:
            raise ValueError(f"{delta} is no delta")
        return _discrete(self.charges, delta) if self._discrete else _continuous(self.charges, delta)

    def fits(self, epsilon: float, delta: float) -> bool:
        """Whether everything charged lies within (``epsilon``, ``delta``): the quick bound first."""
        if not self._discrete and self.charges and _renyi(self.charges, delta) <= epsilon:
            return True
        return self.epsilon(delta) <= epsilon


def epsilon_of(noise: float, rate: float, steps: int, delta: float, *, discrete: bool = False) -> float:
    """ε at ``delta`` of ``steps`` equal releases; see :class:`Charge`."""
    return Accountant(discrete=discrete, charges=[Charge(noise, rate, steps)]).epsilon(delta)


@lru_cache(maxsize=64)
def noise_for(epsilon: float, delta: float, rate: float, steps: int, *, discrete: bool = False) -> float:
    """The smallest noise, up to 0.01 %, at which ``steps`` releases stay within (``epsilon``, ``delta``).

    Raises:
        ValueError: no noise reaches it.
    """

    def enough(noise: float) -> bool:
        return Accountant(discrete=discrete, charges=[Charge(noise, rate, steps)]).fits(epsilon, delta)

    return _smallest(enough)


def _smallest(enough: Callable[[float], bool]) -> float:
    low, high = 0.0, 1.0
    while not enough(high):
        low, high = high, 2 * high
        if high > 2.0**30:
            raise ValueError("no amount of noise reaches this epsilon")
    while high - low > _PRECISION * high:
        middle = (low + high) / 2 if low else high / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _discrete(charges: tuple[Charge, ...], delta: float) -> float:
    rho = math.fsum(steps / (2 * noise**2) for noise, _, steps in charges)
    return zcdp_epsilon(rho, delta)


def zcdp_epsilon(rho: float, delta: float) -> float:
    """ε at ``delta`` of ``rho``-zCDP: the least, over Rényi orders α, of αρ + log(1 − 1/α) − log(αδ)/(α − 1).

    Canonne, Kamath and Steinke 2020, proposition 12.
    """
    if rho == 0:
        return 0.0
    a = _ORDERS
    bounds = a * rho + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return max(float(bounds.min()), 0.0) + _ROUNDING


def epsilon_alone(epsilon: float, delta: float, honest: int) -> float:
    """What ε of a sum of shares becomes where all other sites collude with the provider, and one share alone protects.

    The share's variance is 1/``honest`` of the sum's, so each release costs ``honest`` times as much ρ.

    Args:
        epsilon: of the sums, in the discrete accounting.
        delta: at which both are counted.
        honest: shares that the noise of a sum is divided into.
    """
    low, high = 0.0, epsilon
    for _ in range(60):  # ρ of this ε: it grows with it, and is below it
        middle = (low + high) / 2
        low, high = (low, middle) if zcdp_epsilon(middle, delta) >= epsilon else (middle, high)
    return zcdp_epsilon(honest * high, delta)


def _continuous(charges: tuple[Charge, ...], delta: float) -> float:
    if not charges:
        return 0.0
    loose = _renyi(charges, delta)
    if not loose <= LARGEST:
        return loose
    from opacus.accountants.prv import PRVAccountant

    accountant = PRVAccountant()
    accountant.history = [(noise, rate, steps) for noise, rate, steps in charges]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            tight = float(accountant.get_epsilon(delta, eps_error=_EPSILON_ERROR))
        except (RuntimeError, ValueError):  # its own checks of the discretisation
            return loose
    return tight if math.isfinite(tight) and tight >= 0 else loose


def _renyi(charges: tuple[Charge, ...], delta: float) -> float:
    """The Rényi bound of sampled Gaussian steps."""
    from opacus.accountants.analysis.rdp import compute_rdp, get_privacy_spent

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        spent = sum(
            np.asarray(compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=_SUBSAMPLED_ORDERS))
            for noise, rate, steps in charges
        )
        epsilon, _ = get_privacy_spent(orders=_SUBSAMPLED_ORDERS, rdp=spent, delta=delta)
    return max(float(epsilon), 0.0)


def noise_of(privacy: PrivacySettings) -> float:
    """The noise of a policy's releases: its own, or the smallest at which ``releases`` of them stay in the budget."""
    if privacy.noise is not None:
        return privacy.noise
    site = privacy.unit == "site"
    rate = 1.0 if site else privacy.rate
    return noise_for(privacy.epsilon, privacy.delta, rate, privacy.releases, discrete=site)
