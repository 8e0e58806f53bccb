"""What the provider sees of a site: with and without the gate, as a sum, and under a budget."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedser.attacks.purse import Purse
from fedser.attacks.sites import Bare, Seen, defended, replies, sums, undefended, unmasked
from fedser.attacks.study import Attack, flattened
from fedser.errors import BudgetError
from fedser.federation.layout import PEER, unpack
from fedser.federation.policy import Policy
from fedser.federation.schema import Code
from fedser.privacy.accountant import noise_of
from fedser.privacy.ledger import Ledger
from fedser.privacy.settings import PrivacySettings


def attack(small: Any, defence: Any, rounds: int = 2, **study: Any) -> Attack:
    crowd = [small.source.site(small.known, small.known.rows[name]) for name in small.known.named()[:2]]
    settings = small.settings(study={"steps": 3, "bystanders": 2, "learning_rate": 0.05, **study})
    return Attack(settings, small.source, defence, small.keys, rounds, crowd)


def victims(small: Any, count: int = 3) -> list[Any]:
    return [small.source.site(small.victims, small.victims.rows[name]) for name in small.victims.named()[:count]]


def test_the_default_gate_lets_the_update_itself_through(small: Any) -> None:
    """Without differential privacy the provider sees what training changed, bit for bit, layer for layer."""
    default = defended("default", Policy(), small.keys)
    through = attack(small, default)
    data = victims(small, 1)[0]
    order = next(through.orders(1, 1, through.joint[0]))
    seen = default.open("site-0", data).answer(order, through.joint[0])
    bare = Bare(data).answer(order, through.joint[0])
    assert isinstance(seen, Seen)
    assert isinstance(bare, Seen)
    assert torch.equal(seen.flat, bare.flat)
    assert seen.figures[0] == 50.0  # the coarse count
    assert bare.figures[0] == len(data.x)


def test_the_control_has_every_layer_and_the_default_keeps_the_first(small: Any) -> None:
    names = [{name for name, _ in attack(small, defence).plan.layout} for defence in (undefended(), default(small))]
    assert set(small.source.model.first_layer()) <= names[0]
    assert not set(small.source.model.first_layer()) & names[1]


def test_flat_answers_are_asked_for_by_the_last_norm_and_the_peer_and_pass_the_default_gate(small: Any) -> None:
    defence = defended("default", Policy(peer=True), small.keys)
    run = attack(small, defence, peer={"weight": 3.0}, flatten=0.1)
    before, after = (unpack(flat, run.plan.layout) for flat in (run.joint[0], run.sent(run.joint[0])))
    assert {"bottleneck.1.weight", PEER} <= before.keys()
    for name, tensor in before.items():
        share = {"bottleneck.1.weight": 0.1, "bottleneck.1.bias": 0.1, PEER: 0.01}.get(name, 1.0)
        assert torch.allclose(after[name], share * tensor), name
    assert torch.equal(flattened(run.joint[0], run.plan.layout, 1.0), run.joint[0])
    (heard,) = attack(small, defence, 1, peer={"weight": 3.0}, flatten=0.1).listen(
        victims(small), [0, 0, 0], np.random.default_rng(0)
    )
    assert bool(heard.flats.any(dim=1).all())  # a refusal would be a row of zeros


def default(small: Any) -> Any:
    return defended("default", Policy(), small.keys)


def test_refusals_are_counted_and_show_nothing(small: Any) -> None:
    tight = defended("private", Policy(rounds=1), small.keys)
    run = attack(small, tight)
    heard = list(run.listen(victims(small), [0, 0, 0], np.random.default_rng(0)))
    assert bool(heard[0].flats.any())
    assert not bool(heard[1].flats.any())
    assert run.refusals == {"ROUNDS_SPENT": 3}


def test_a_sum_holds_the_site_and_as_many_others_of_its_group() -> None:
    flats = torch.eye(6)
    joined = sums(flats, 3, [0, 0, 0, 1, 1, 1], np.random.default_rng(0))
    assert torch.equal(joined.sum(dim=1), torch.full((6,), 3.0))
    assert torch.equal(joined.diagonal(), torch.ones(6))
    assert not bool(joined[:3, 3:].any())
    assert torch.equal(sums(flats, 1, [0] * 6, np.random.default_rng(0)), flats)


def masked(**changes: Any) -> Policy:
    privacy = {"unit": "site", "form": "central", "masking": {"required": True, "honest": 4}, **changes}
    return Policy.model_construct(**{**Policy().model_dump(), "privacy": PrivacySettings.model_validate(privacy)})


def test_a_share_of_a_central_sum_has_its_part_of_the_variance() -> None:
    policy = masked()
    alone = unmasked(policy).privacy
    assert alone.form == "local"
    assert not alone.masking.required
    assert noise_of(alone) == pytest.approx(noise_of(policy.privacy) / 2)
    assert unmasked(Policy()) == Policy()


def test_four_shares_have_the_noise_that_the_policy_names(small: Any) -> None:
    """The sum that the lab attacks is as noisy as the one that the provider would see."""
    policy = masked(noise=2.0, clip=1.0)
    run = attack(small, defended("private", policy, small.keys), rounds=1)
    assert run.defence.cohort == 4
    (heard,) = run.listen(victims(small, 4), [0] * 4, np.random.default_rng(0))
    values = heard.flats[0]
    expected = 2.0 * math.sqrt(1.0)
    assert abs(float(values.std()) - expected) < 6 * expected / math.sqrt(2 * len(values)) + 0.05


def test_a_purse_ends_where_a_ledger_does() -> None:
    privacy = PrivacySettings(unit="site", epsilon=2.0, noise=3.0)
    real = Ledger(None, "a", "site", privacy.epsilon, privacy.delta)
    purse, other = Purse(privacy, "a", shared := {}), Purse(privacy, "b", shared)
    ended = []
    for ledger in (real, purse, other):
        number = 0
        with pytest.raises(BudgetError):
            for number in range(1, 100):
                ledger.charge(3.0, 1.0, 1, study="s", round=number, attempt=0)
        ended.append(number)
    assert ended[0] == ended[1] == ended[2] > 1
    Purse(privacy, "c", None).charge(1e-3, 1.0, 1, study="s", round=1, attempt=0)  # what is free never ends


def test_a_site_whose_budget_is_spent_answers_with_the_code(small: Any) -> None:
    policy = Policy(privacy=PrivacySettings(unit="site", epsilon=1.0, releases=1))
    run = attack(small, defended("private", policy, small.keys))
    site = run.defence.open("site-0", victims(small, 1)[0])
    orders = [next(run.orders(number, 1, run.joint[0])) for number in (1, 2)]
    assert isinstance(site.answer(orders[0], run.joint[0]), Seen)
    assert site.answer(orders[1], run.joint[0]) == Code.BUDGET


def test_without_noise_there_is_none(small: Any) -> None:
    """What the attacker runs on his own sites shows the clipped update."""
    policy = Policy(privacy=PrivacySettings(unit="site"))
    noisy, clean = (
        replies([defended("x", policy, small.keys, noiseless=quiet).open("site-0", victims(small, 1)[0])], o, flat)[0]
        for quiet in (False, True)
        for run in [attack(small, defended("x", policy, small.keys))]
        for flat in [run.joint[0]]
        for o in [run.orders(1, 1, flat)]
    )
    assert float(clean.norm()) < 1.5
    assert float(noisy.norm()) > 20 * float(clean.norm())
