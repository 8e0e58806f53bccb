"""A canary audit of the site unit through the whole site: order in, reply out, as the provider sees it.

With 10,000 canaries, of the mechanism itself: ``benchmarks/privacy/site_canary.py``. There the bound holds with 95 %;
the runs here ask for 1 − 10⁻⁹.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fedser.federation import wire
from fedser.federation.layout import elements
from fedser.federation.schema import Update
from fedser.privacy import site_unit
from fedser.privacy.audit_epsilon import epsilon_lower_bound
from tests.federation.test_site_privacy import CLIP, constant, order_of, private, reply_of, site_of

SURE = 1 - 1e-9
RELEASES = 2


def scores(lab: Any, epsilon: float, value: float, sites: int) -> NDArray[np.float64]:
    """How far the releases of sites whose updates have one ``value`` everywhere lie in its direction."""
    policy = private(epsilon=epsilon, noise=None, releases=RELEASES)
    orders = [order_of(lab, number) for number in range(1, RELEASES + 1)]
    found = []
    for _ in range(sites):
        site, total = site_of(lab, policy, constant(value)), 0.0
        for order in orders:
            update, payload = reply_of(lab, site, order)
            assert isinstance(update, Update)
            total += float(payload.sum())
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize("claim", [1.0, 4.0])
def test_the_bound_stays_below_the_claim(lab: Any, claim: float) -> None:
    bound = epsilon_lower_bound(scores(lab, claim, 100.0, 70), scores(lab, claim, 0.0, 70), 1e-5, SURE)
    assert bound <= claim


def test_noise_switched_off_is_detected(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_unit, "noised", lambda integers, std: integers)
    bound = epsilon_lower_bound(scores(lab, 1.0, 100.0, 70), scores(lab, 1.0, 0.0, 70), 1e-5)
    assert bound > 1.5


def test_a_site_that_forgets_to_clip_is_detected(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack itself has the power to find a false claim."""
    usual = site_unit.on_grid
    monkeypatch.setattr(site_unit, "on_grid", lambda flat, clip, grid: usual(flat, 1e3 * clip, grid))
    bound = epsilon_lower_bound(scores(lab, 1.0, 100.0, 70), scores(lab, 1.0, 0.0, 70), 1e-5)
    assert bound > 1.5


def test_the_canary_is_the_worst_that_the_clip_lets_through(lab: Any) -> None:
    order = order_of(lab)
    size = elements(wire.decode_order(order, lab.order_key.public_hex)[0].layout)
    grid = site_unit.grid_of(CLIP, size)
    steps = site_unit.on_grid(torch.full((size,), 100.0), CLIP, grid)
    assert float(np.linalg.norm(steps)) * grid == pytest.approx(CLIP, rel=1e-2)
