"""ε against hand calculation, and against dp-accounting, which fedser does not use."""

from __future__ import annotations

import json
import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.pld.pld_privacy_accountant import PLDAccountant
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant

from fedser.privacy import accountant
from fedser.privacy.accountant import Accountant, Charge, epsilon_alone, epsilon_of, noise_for, zcdp_epsilon
from fedser.privacy.site_unit import noise_of_share

FINE = list(1 + np.geomspace(1e-3, 1e5, 4001))


def event(charge: Charge) -> dp_accounting.DpEvent:
    gaussian = dp_accounting.GaussianDpEvent(charge.noise)
    sampled = gaussian if charge.rate == 1 else dp_accounting.PoissonSampledDpEvent(charge.rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, charge.steps)


def tight(charges: list[Charge], delta: float) -> float:
    told = PLDAccountant()
    for charge in charges:
        told.compose(event(charge))
    return float(told.get_epsilon(delta))


def within(own: float, other: float) -> bool:
    return other <= own <= other + max(0.01 * other, 0.015)


def schedule(draw: np.random.Generator, *, discrete: bool) -> tuple[list[Charge], float]:
    charges = [
        Charge(
            math.exp(draw.uniform(math.log(1.0), math.log(20))),
            1.0 if discrete else math.exp(draw.uniform(math.log(2e-3), 0)),
            int(math.exp(draw.uniform(0, math.log(40 if discrete else 400)))),
        )
        for _ in range(draw.integers(1, 4))
    ]
    return charges, 10.0 ** draw.uniform(-8, -5)


@pytest.mark.parametrize("seed", range(12))
def test_sampled_schedules_against_the_tight_accountant(seed: int) -> None:
    """200 of them: ``benchmarks/privacy/accountant.py``."""
    charges, delta = schedule(np.random.default_rng(seed), discrete=False)
    own = Accountant(charges=charges).epsilon(delta)
    other = tight(charges, delta)
    assert within(own, other) or other > accountant.LARGEST
    assert own >= other


@pytest.mark.parametrize("seed", range(12))
def test_discrete_schedules_against_the_same_bound_and_the_tight_one(seed: int) -> None:
    charges, delta = schedule(np.random.default_rng(seed), discrete=True)
    own = Accountant(discrete=True, charges=charges).epsilon(delta)
    other = RdpAccountant(orders=FINE)
    for charge in charges:
        other.compose(event(charge))
    assert within(own, float(other.get_epsilon(delta)))
    assert own >= tight(charges, delta)


def test_a_figure_of_one_run_at_a_time_would_be_noticed() -> None:
    """What an accountant that starts anew each round would say lies far below the truth."""
    charges = [Charge(2.0, 0.1, 50)] * 4
    assert not within(max(epsilon_of(*charge, 1e-5) for charge in charges), tight(charges, 1e-5))


def test_the_conversion_by_hand() -> None:
    """One order: αρ + log(1 − 1/α) − log(αδ)/(α − 1) with ρ = 1/2, α = 5, δ = 10⁻⁵."""
    at_five = 2.5 + math.log(0.8) - math.log(5e-5) / 4
    assert zcdp_epsilon(0.5, 1e-5) <= at_five < zcdp_epsilon(0.5, 1e-5) + 0.3
    assert zcdp_epsilon(0.0, 1e-5) == 0
    simple = 0.5 + 2 * math.sqrt(0.5 * math.log(1e5))  # the older, looser conversion, Bun and Steinke 2016
    assert zcdp_epsilon(0.5, 1e-5) < simple


def test_charges_compose_and_survive_as_json() -> None:
    first = Accountant(discrete=True, charges=[Charge(3.0, 1.0, 2), Charge(3.0, 1.0, 3)])
    assert first.charges == (Charge(3.0, 1.0, 5),)
    again = Accountant(discrete=True, charges=[Charge(*c) for c in json.loads(json.dumps(first.charges))])
    assert again.epsilon(1e-6) == first.epsilon(1e-6) == epsilon_of(3.0, 1.0, 5, 1e-6, discrete=True)
    assert Accountant().epsilon(1e-5) == Accountant(discrete=True).epsilon(1e-5) == 0
    assert epsilon_of(math.sqrt(5) * 3, 1.0, 25, 1e-6, discrete=True) == pytest.approx(first.epsilon(1e-6))


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "discrete"), [(1.0, 1.0, 20, True), (8.0, 1.0, 5, True), (2.0, 0.1, 100, False)]
)
def test_the_noise_for_a_target_keeps_it_and_no_more(epsilon: float, rate: float, steps: int, discrete: bool) -> None:
    noise = noise_for(epsilon, 1e-5, rate, steps, discrete=discrete)
    assert epsilon_of(noise, rate, steps, 1e-5, discrete=discrete) <= epsilon
    assert not Accountant(discrete=discrete, charges=[Charge(0.999 * noise, rate, steps)]).fits(epsilon, 1e-5)


def test_more_noise_fewer_steps_and_a_smaller_rate_cost_less() -> None:
    base = epsilon_of(2.0, 0.2, 50, 1e-5)
    assert max(epsilon_of(2.5, 0.2, 50, 1e-5), epsilon_of(2.0, 0.1, 50, 1e-5), epsilon_of(2.0, 0.2, 40, 1e-5)) < base


def test_where_all_others_collude_one_share_alone_protects() -> None:
    """Against the accountant on the share's own noise, of every release by itself."""
    noise = noise_for(8.0, 1e-5, 1.0, 20, discrete=True)
    spent = epsilon_of(noise, 1.0, 20, 1e-5, discrete=True)
    for honest in (2, 3, 10):
        alone = epsilon_of(noise_of_share(noise, honest), 1.0, 20, 1e-5, discrete=True)
        assert epsilon_alone(spent, 1e-5, honest) == pytest.approx(alone, rel=1e-6)
        assert alone > spent
    assert epsilon_alone(8.0, 1e-5, 1) == pytest.approx(8.0, rel=1e-6)


def test_hardly_any_noise_is_told_as_a_huge_figure_without_a_long_wait() -> None:
    assert epsilon_of(0.05, 0.5, 1000, 1e-5) > 1e5
    assert epsilon_of(1e-3, 1.0, 1, 1e-5, discrete=True) > 1e5


@pytest.mark.parametrize("charge", [(0.0, 1.0, 1), (-1.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 1.0, -1)])
def test_no_release_is_refused(charge: tuple[float, float, int]) -> None:
    with pytest.raises(ValueError, match="no release"):
        Accountant().add(Charge(*charge))


def test_what_else_cannot_be_accounted_for() -> None:
    with pytest.raises(ValueError, match="no release"):
        Accountant(discrete=True).add(Charge(1.0, 0.5, 1))  # sampling helps no site: its reply is seen
    with pytest.raises(ValueError, match="no delta"):
        Accountant().epsilon(0.0)
