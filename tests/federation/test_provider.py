"""Rounds end to end: the same bytes in, the same model out, whatever one site does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fedser.errors import ConfigError
from fedser.federation import wire
from fedser.federation.layout import tensor_digest
from fedser.federation.provider import Silence
from fedser.federation.schema import Scalars, Update
from fedser.federation.stages import Received, ServerState, apply_update, average, server_step


def test_steps_are_spread_over_the_rounds_and_the_last_stay_at_the_site(lab: Any) -> None:
    sites = lab.sites(2)
    plan = lab.plan(sites, steps=11, rounds=3, personal_steps=4)
    transport = lab.wired(sites)
    lab.provider(sites, plan, transport).run(lab.start(plan))
    seen = [wire.decode_order(data, lab.order_key.public_hex)[0] for site, data in transport.orders if site == "site-1"]
    assert [order.phase for order in seen] == ["train", "train", "train", "finish"]
    assert [(order.work.start, order.work.steps) for order in seen] == [(0, 2), (2, 2), (4, 3), (7, 4)]
    assert {order.work.total for order in seen} == {11}
    assert len({order.seed for order in seen}) == 1  # one site's batches go on where they ended


def test_two_runs_are_bit_identical_and_the_order_of_sites_does_not_matter(lab: Any) -> None:
    results = []
    for turn in (False, True, False):
        sites = lab.sites(3)
        plan = lab.plan(sites)
        plan = replace(plan, sites=dict(sorted(plan.sites.items(), reverse=turn)))
        results.append(lab.provider(sites, plan).run(lab.start(plan)))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], lab.start(plan))


def test_a_round_is_the_mean_of_the_updates(lab: Any) -> None:
    sites = lab.sites(2)
    plan = lab.plan(sites, rounds=1)
    transport = lab.wired(sites)
    after = lab.provider(sites, plan, transport).run(lab.start(plan))
    flats = [wire.decode_reply(data, plan.sites[site])[1] for site, data in transport.replies]
    flats = [flat for flat in flats if len(flat)]
    assert len(flats) == 2
    assert torch.allclose(after, lab.start(plan) + (flats[0] + flats[1]) / 2, atol=1e-6)


def test_one_site_alone_in_one_round_adapts_as_it_would_alone(lab: Any) -> None:
    from fedser.adapt import adapt, make
    from fedser.federation.local import settle

    sites = lab.sites(1)
    plan = lab.plan(sites, steps=4, rounds=1)
    order = lab.provider(sites, plan).order(1, "site-1", "train", lab.start(plan))
    after = lab.provider(sites, plan).run(lab.start(plan))
    data = lab.data(1)
    settle(data.model, data.x)
    alone = adapt(data.model, data.x, make("ecan"), plan.schedule, seed=order.seed)
    from fedser.federation.layout import pack

    assert torch.allclose(after, pack(dict(alone.model.named_parameters()), plan.layout), atol=1e-6)


class Hostile:
    """Replaces the replies of one site."""

    def __init__(self, inner: Any, site: str, forge: Any) -> None:
        self.inner, self.site, self.forge = inner, site, forge

    def exchange(self, orders: Any) -> Any:
        for site, order in orders:
            ((_, reply),) = self.inner.exchange([(site, order)])
            yield site, self.forge(order, reply) if site == self.site else reply


def forged(lab: Any, order: bytes, flat: torch.Tensor, **changes: Any) -> bytes:
    digest = wire.order_digest(wire.decode_order(order, lab.order_key.public_hex)[0])
    fields = {"order_digest": digest, "tensor_digest": tensor_digest(flat), "utterances": None, "scalars": None}
    return wire.encode(Update(protocol=1, **{**fields, **changes}), flat, lab.key(3))


def full(lab: Any, order: bytes, value: float) -> torch.Tensor:
    """An update of the right length."""
    return torch.full_like(wire.decode_order(order, lab.order_key.public_hex)[1], value)


HOSTILE = {
    "nothing": lambda lab, order, reply: b"",
    "garbage": lambda lab, order, reply: reply[:-4],
    "nan": lambda lab, order, reply: forged(lab, order, full(lab, order, float("nan"))),
    "infinite": lambda lab, order, reply: forged(lab, order, full(lab, order, float("inf"))),
    "huge": lambda lab, order, reply: forged(lab, order, full(lab, order, 1e9)),
    "broadcast": lambda lab, order, reply: forged(lab, order, torch.ones(1)),
    "longer": lambda lab, order, reply: forged(lab, order, torch.ones(500)),
    "another order": lambda lab, order, reply: forged(lab, order, full(lab, order, 0.1), order_digest="0" * 64),
    "another key": lambda lab, order, reply: wire.encode(
        wire.decode_reply(reply, lab.key(3).public_hex)[0],
        wire.decode_reply(reply, lab.key(3).public_hex)[1],
        lab.key(8),
    ),
    "order back": lambda lab, order, reply: order,
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_site_changes_nothing(lab: Any, name: str) -> None:
    honest = lab.sites(2)
    plan = lab.plan(honest)
    expected = lab.provider(honest, plan).run(lab.start(plan))

    sites = lab.sites(3)
    plan = lab.plan(sites)
    transport = Hostile(lab.wired(sites), "site-3", lambda order, reply: HOSTILE[name](lab, order, reply))
    provider = lab.provider(sites, plan, transport)
    assert torch.equal(provider.run(lab.start(plan)), expected)
    assert {refused.site for refused in provider.refusals} == {"site-3"}
    assert all(refused.code for refused in provider.refusals)


def received(value: float, utterances: int | None = None) -> Received:
    flat = torch.tensor([value, 2 * value])
    scalars = Scalars(loss=0.0, confidence=0.5, diversity=0.5)
    digest = tensor_digest(flat)
    return Received("s", Update(1, digest, digest, utterances, scalars), flat)


def test_server_momentum_by_hand() -> None:
    stages = (average(), apply_update(momentum=0.5, rate=2.0))
    tensors, state = server_step(stages, torch.zeros(2), [received(1.0), received(3.0)], ServerState())
    assert tensors.tolist() == [4.0, 8.0]
    tensors, _ = server_step(stages, tensors, [received(1.0)], state)
    assert tensors.tolist() == [4.0 + 2 * (1.0 + 1.0), 8.0 + 2 * (2.0 + 2.0)]


def test_counts_weigh_and_a_masking_stage_is_one_more_in_the_list() -> None:
    weighted, _ = server_step(
        (average(weighting="counts"), apply_update()),
        torch.zeros(2),
        [received(1.0, 50), received(4.0, 100)],
        ServerState(),
    )
    assert weighted.tolist() == pytest.approx([3.0, 6.0])

    def halve(work: Any) -> Any:
        return replace(work, joint=work.joint / 2)

    halved, _ = server_step((average(), halve, apply_update()), torch.zeros(2), [received(4.0)], ServerState())
    assert halved.tolist() == [2.0, 4.0]


def test_no_reply_at_all_is_a_refusal(lab: Any) -> None:
    sites = lab.sites(2)

    class Silent:
        def exchange(self, orders: Any) -> Any:
            for site, order in orders:
                yield site, Silence("no reply before the deadline") if site == "site-2" else sites[site].answer(order)

    plan = lab.plan(sites)
    provider = lab.provider(sites, plan, Silent())
    provider.run(lab.start(plan))
    assert [(r.round, r.site) for r in provider.refusals] == [(1, "site-2"), (2, "site-2"), (3, "site-2")]


def test_a_plan_that_no_order_can_hold_is_a_clear_error(lab: Any) -> None:
    sites = lab.sites(1)
    plan = lab.plan(sites)
    for wrong, words in (
        (replace(plan, sites={"Haus Köln": "00"}), "'site' = 'Haus Köln'"),
        (replace(plan, schedule=plan.schedule.model_copy(update={"learning_rate": 20.0})), "'learning_rate' = 20.0"),
    ):
        with pytest.raises(ConfigError, match=words):
            lab.provider(sites, wrong).run(lab.start(plan))
