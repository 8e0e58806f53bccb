"""Masked sums at real sites: what the policy demands, the noise under the mask, the audit log, and crashes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from fedser.errors import OutputError, QuorumError
from fedser.federation import audit_entries, wire
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.audit import AuditLog
from fedser.federation.layout import elements
from fedser.federation.policy import Policy
from fedser.federation.provider import Flight, Provider
from fedser.federation.schema import Code, Masked, Order, Refusal
from fedser.federation.secure_schema import MaskedUpdate
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.secure_update import fits, integers
from fedser.federation.site import Site
from fedser.federation.stages import ServerState, SiteStage, SiteWork
from fedser.privacy.ledger import open_ledger
from fedser.privacy.settings import MaskingSettings, PrivacySettings
from tests.federation.conftest import Lab, local_data

NOISE, CLIP, HONEST = 3.0, 0.5, 3


def policy_of(form: str = "central", **changes: Any) -> Policy:
    masking = MaskingSettings(required=True, honest=HONEST)
    given = {"unit": "site", "form": form, "epsilon": 50.0, "clip": CLIP, "noise": NOISE, "masking": masking}
    return Policy(radius=1e6, privacy=PrivacySettings(**{**given, **changes}))


def constant(value: float) -> SiteStage:
    """A stage in place of training: every value of the update is the same."""

    def stage(work: SiteWork) -> SiteWork:
        return replace(work, update=torch.full((elements(work.order.layout),), value))

    return stage


def sites_of(policy: Policy, count: int = 4, **options: Any) -> dict[str, Site]:
    return {
        f"site-{number}": Lab.site(number, policy, ledger=open_ledger(policy.privacy, "site", None), **options)
        for number in range(1, count + 1)
    }


def node_of(sites: Mapping[str, Site], transport: Any = None, **terms: Any) -> Provider:
    plan = Lab.plan(sites, masking=MaskingTerms(**terms), largest_norm=1e6)
    stages = server_stages(AggregationSettings(rate=1.0), masked=True)
    return Provider(plan, Lab.order_key, transport or Lab.wired(sites), stages)


def moved(node: Provider) -> torch.Tensor:
    """What one round adds to the joint tensors."""
    start = Lab.start(node.plan)
    return node.round(1, start, ServerState())[0].double() - start.double()


def noise_within(values: torch.Tensor, std: float) -> bool:
    """Whether values could be noise of ``std``: a χ² of their squares, two-sided, at a chance of 1e-10."""
    statistic = float(values.double().square().sum()) / std**2
    return bool(chi2.isf(1 - 1e-10, len(values)) < statistic < chi2.isf(1e-10, len(values)))


@pytest.mark.parametrize("count", [3, 6])
def test_the_sum_has_the_noise_that_the_honest_sites_owe_it(count: int) -> None:
    """Zeros under the masks: what comes out is noise alone, of variance σ²·n/h for n survivors, h by the policy."""
    sites = sites_of(policy_of(), count, stages=(constant(0.0),))
    total = moved(node_of(sites)) * count
    target = NOISE * (CLIP + 2.0**-20 * math.sqrt(len(total)) / 2)
    assert noise_within(total, target * math.sqrt(count / HONEST))
    assert not noise_within(total, target * math.sqrt(count / HONEST) * 2)


def test_the_local_form_has_all_of_its_noise_at_each_site() -> None:
    sites = sites_of(policy_of("local"), 3, stages=(constant(0.0),))
    total = moved(node_of(sites)) * 3
    assert noise_within(total, NOISE * CLIP * math.sqrt(3))


def order_of(sites: Mapping[str, Site], senders: int, **terms: Any) -> Order:
    node = node_of(sites, **terms)
    order = node.order(1, "site-1", "train", Lab.start(node.plan), Flight(0, 2**40))
    names = tuple(f"site-{number:03d}" for number in range(senders))
    chosen = MaskingTerms(**terms).terms(4)
    return replace(order, masking=Masked(chosen, "0" * 64, names, ()))


def test_a_share_follows_the_sites_own_policy_whatever_the_provider_names() -> None:
    """By hand: σ·Δ/γ/√h; neither the senders nor the threshold of an order changes it."""
    sites = sites_of(policy_of(), 3)
    cashier = sites["site-1"]._gate._cashier
    values = elements(order_of(sites, 3).layout)
    expected = NOISE * (CLIP + 2.0**-20 * math.sqrt(values) / 2) * 2**20 / math.sqrt(HONEST)
    for senders in (2, 3, 100, 1000):
        assert cashier.share(order_of(sites, senders)) == pytest.approx(expected)
    assert cashier.share(order_of(sites, 5, clip=0.25)) < expected  # a shorter clip has a smaller sensitivity


def test_what_a_central_release_costs_is_no_less_than_one_gaussian() -> None:
    site = sites_of(policy_of(), 3)["site-1"]
    noise, rate, steps = site._gate._cashier.price(order_of({"site-1": site}, 3))
    assert (rate, steps) == (1.0, 1)
    assert noise <= NOISE
    assert noise == pytest.approx(NOISE, rel=1e-6)


@pytest.mark.parametrize("form", ["central", "local"])
def test_masked_orders_are_charged_once_each(form: str) -> None:
    policy = policy_of(form)
    ledger = open_ledger(policy.privacy, "site-1", None)
    assert ledger is not None
    sites = sites_of(policy, 3)
    sites["site-1"] = Lab.site(1, policy, ledger=ledger)
    node = node_of(sites)
    node.run(Lab.start(node.plan))
    assert len(ledger) == 2  # rounds; the order to finish costs nothing


def test_a_share_too_narrow_for_the_grid_is_refused_before_it_is_charged() -> None:
    policy = policy_of(noise=0.01)
    sites = sites_of(policy, 3)
    with pytest.raises(QuorumError, match="0 updates"):
        moved(node_of(sites, grid=8))


@pytest.mark.parametrize(
    ("clip", "grid", "modulus", "room"), [(4, 20, 32, True), (20, 27, 32, False), (20, 26, 64, True)]
)
def test_room_is_checked_by_each_site(clip: float, grid: int, modulus: int, room: bool) -> None:
    sites = {"site-1": Lab.site(1, Policy(clip=20.0))}
    order = order_of(sites, 2, clip=clip, grid=grid, modulus=modulus) if room else order_of(sites, 2)
    if not room:
        assert order.masking is not None
        terms = replace(order.masking.terms, clip=clip, grid=grid)
        order = replace(order, masking=replace(order.masking, terms=terms))
    assert fits(order, Policy(clip=20.0), 0.0) == room


def test_integers_are_the_clipped_update_in_grid_steps() -> None:
    order = order_of({"site-1": Lab.site(1)}, 3, clip=2.0)
    assert order.masking is not None
    flat = torch.randn(200, generator=torch.Generator().manual_seed(3)) * 5
    steps = integers(flat, Policy(clip=1.5), order.masking, 0.0)
    expected = np.rint(flat.double().numpy() * (1.5 / np.linalg.norm(flat.double().numpy())) * 2**20)
    assert np.abs(steps - expected).max() <= 1
    assert np.linalg.norm(steps) * 2.0**-20 <= 1.5 + 2.0**-20 * math.sqrt(200) / 2


def test_a_site_that_demands_masks_refuses_plain_orders_and_its_neighbours_do_not() -> None:
    policy = Policy(privacy=PrivacySettings(masking=MaskingSettings(required=True)))
    sites = {"site-1": Lab.site(1, policy), "site-2": Lab.site(2)}
    node = Lab.provider(sites)
    node.run(Lab.start(node.plan))
    assert {(refused.site, refused.code) for refused in node.refusals} == {("site-1", "MASK")}
    assert sites["site-1"].personal() is not None  # the order to finish takes nothing out


def test_neither_counts_nor_figures_go_with_a_masked_update() -> None:
    sites = Lab.sites(3)
    transport = Lab.wired(sites)
    node = node_of(sites, transport)
    node.run(Lab.start(node.plan))
    told = [wire.read(reply, node.plan.sites[site]).message for site, reply in transport.replies]
    updates = [message for message in told if isinstance(message, MaskedUpdate)]
    assert len(updates) == 6
    assert set(MaskedUpdate.__dataclass_fields__) == {"protocol", "order_digest", "tensor_digest", "modulus"}


def test_the_audit_log_holds_each_message_before_it_leaves() -> None:
    log = AuditLog()
    sites = {**Lab.sites(3), "site-1": Lab.site(1, audit=log)}
    transport = Lab.wired(sites)
    node = node_of(sites, transport)
    node.run(Lab.start(node.plan))
    events = [record["event"] for record in log.records]
    one = [audit_entries.KEYS, audit_entries.SHARES, "update", audit_entries.CONSENT, audit_entries.UNMASK]
    assert events == [*one, *one, "finished"]
    assert [record["bytes"] for record in log.records] == [len(r) for site, r in transport.replies if site == "site-1"]
    update = next(record for record in log.records if record["event"] == "update")
    assert (update["norm"], update["encoding"]) == (None, "masked u32")


def test_nothing_leaves_that_the_audit_log_does_not_hold() -> None:
    class Full(AuditLog):
        def append(self, entry: Mapping[str, Any]) -> str:
            if entry["event"] == self.which:  # type: ignore[attr-defined]
                raise OutputError("The disk is full.", "Free some space.")
            return super().append(entry)

    for which in (*audit_entries.MASKING, "update"):
        log = Full()
        log.which = which  # type: ignore[attr-defined]
        sites = {**Lab.sites(3), "site-1": Lab.site(1, audit=log)}
        with pytest.raises(OutputError):
            moved(node_of(sites))


class CutError(BaseException):
    """Stands for SIGKILL."""


def test_a_crash_between_the_two_states_never_masks_twice() -> None:
    """The secrets are gone from the disk before the update's state is there: the order is refused, not masked again."""
    secure: list[Any] = []

    def cut(state: Any) -> None:
        raise CutError

    sites = Lab.sites(3)
    sites["site-1"] = Lab.site(1, keep=cut, keep_secure=secure.append)
    transport = Lab.wired(sites)
    node = node_of(sites, transport)
    with pytest.raises(CutError):
        moved(node)
    assert secure[-1].seed == ""
    again = Lab.site(1, secure=secure[-1])
    message, _ = wire.decode_reply(again.answer(transport.orders[-1][1]), Lab.key(1).public_hex)
    assert isinstance(message, Refusal)
    assert message.code == Code.MASK


def test_a_repeated_order_gets_the_stored_masked_bytes() -> None:
    sites = Lab.sites(3)
    transport = Lab.wired(sites)
    moved(node_of(sites, transport))
    for (site, order), (_, reply) in zip(transport.orders, transport.replies, strict=True):
        assert sites[site].answer(order) == reply


def test_what_only_the_data_can_tell_does_not_show_under_a_mask_either() -> None:
    """A site with a unit and too little data answers like any other, with noise."""
    policy = policy_of()
    sites = sites_of(policy, 3, stages=(constant(0.0),))
    sites["site-1"] = Lab.site(
        1,
        policy.model_copy(update={"utterances_min": 10_000}),
        data=local_data(1, 9),
        ledger=open_ledger(policy.privacy, "site-1", None),
    )
    node = node_of(sites)
    moved(node)
    assert node.refusals == []
