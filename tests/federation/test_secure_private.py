"""A privacy unit inside the site, and masks on top of it, as ``configs/policy/private.yaml`` asks for both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedser.errors import QuorumError
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.site import Site
from fedser.federation.stages import ServerState
from fedser.privacy.settings import MaskingSettings
from tests.federation.conftest import ORDER_KEY, key
from tests.federation.test_private import data_for, ledger_of, private


def demanding(unit: str) -> Policy:
    return private(unit, masking=MaskingSettings(required=True, honest=3))


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
def test_noised_steps_leave_under_masks_and_are_paid_for_once(lab: Any, unit: str) -> None:
    policy = demanding(unit)
    ledgers = {f"site-{number}": ledger_of(policy) for number in (1, 2, 3)}
    sites = {
        name: Site(name, "study", data_for(unit), policy, key(int(name[-1])), ORDER_KEY.public_hex, ledger=ledger)
        for name, ledger in ledgers.items()
    }
    plan = replace(lab.plan(sites, rounds=2, steps=8), masking=MaskingTerms())
    node = Provider(
        plan, ORDER_KEY, lab.wired(sites), server_stages(AggregationSettings(rate=1.0), plan.layout, masked=True)
    )
    start = lab.start(plan)
    after, _ = node.round(1, start, ServerState())
    assert node.refusals == []
    assert 0 < float((after - start).norm()) < policy.clip
    assert torch.isfinite(after).all()
    alone = ledger_of(policy)
    alone.charge(2.0, 0.5, 4, study="study", round=1, attempt=0, fingerprint="0" * 64)
    assert all(ledger.spent() == alone.spent() > 0 for ledger in ledgers.values())


def test_two_honest_sites_are_not_enough_for_a_policy_of_three(lab: Any) -> None:
    policy = demanding("speaker")
    sites = {
        f"site-{number}": Site(
            *(f"site-{number}", "study", data_for("speaker"), policy, key(number), ORDER_KEY.public_hex),
            ledger=ledger_of(policy),
        )
        for number in (1, 2, 3)
    }
    plan = replace(lab.plan(sites, rounds=2, steps=8), masking=MaskingTerms(threshold=2))
    node = Provider(plan, ORDER_KEY, lab.wired(sites), server_stages(AggregationSettings(), masked=True))
    with pytest.raises(QuorumError, match="0 shares"):
        node.round(1, lab.start(plan), ServerState())
    assert {refused.code for refused in node.refusals} == {"MASK"}
