"""Likelihood ratios against the definition, and an attack that works where nothing defends and fails under noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.distributions import Normal

from fedser.attacks import membership, published
from fedser.attacks.sites import Defence, defended, undefended
from fedser.attacks.study import Attack
from fedser.compute import generator
from fedser.federation.policy import Policy
from fedser.models import ModelSettings
from fedser.privacy.settings import PrivacySettings


def test_the_ratio_is_that_of_two_normals() -> None:
    draw = generator("test lira")
    mine, theirs = torch.randn(30, 4, generator=draw).double(), torch.randn(3, 4, generator=draw).double()
    member = torch.rand(30, 4, generator=draw) < 0.5
    told = membership.likelihood_ratio(mine, member, theirs)
    for m in range(4):
        inside, outside = mine[member[:, m], m], mine[~member[:, m], m]
        expected = Normal(inside.mean(), inside.std()).log_prob(theirs[:, m]) - Normal(
            outside.mean(), outside.std()
        ).log_prob(theirs[:, m])
        assert torch.allclose(told[:, m], expected)


def test_true_positives_by_hand() -> None:
    ratios = torch.cat([torch.arange(100.0), torch.tensor([98.5, 99.5, 5.0, 200.0])])[None]
    truth = torch.tensor([[False] * 100 + [True] * 4])
    assert membership.true_positives(ratios, truth) == 0.75  # one of the hundred passes: 99


def test_half_of_the_pool_is_at_each_site() -> None:
    drawn = membership.members(50, 16, np.random.default_rng(0))
    assert drawn.shape == (50, 16)
    assert torch.equal(drawn.sum(dim=1), torch.full((50,), 8))
    assert 10 < int(drawn[:, 3].sum()) < 40


def attacked(small: Any, defence: Defence) -> list[float]:
    settings = small.settings()
    crowd = [small.source.site(small.known, small.known.rows[name]) for name in small.known.named()[:2]]
    run = Attack(settings, small.source, defence, small.keys, 1, crowd)
    pool = membership.pool_of(small.victims, settings.membership.pool, np.random.default_rng(5))
    quiet = defended("quiet", defence.policy, small.keys, noiseless=True)
    told = membership.infer(run, quiet, small.victims, pool)
    return [membership.true_positives(*ratios) for ratios in told.values()]


def test_updates_tell_members_and_noised_ones_do_not(small: Any) -> None:
    assert max(attacked(small, undefended())) > 0.2
    private = Policy(utterances_min=1, privacy=PrivacySettings(unit="site", epsilon=1.0, releases=1))
    assert max(attacked(small, defended("private", private, small.keys))) < 0.12


def test_a_source_that_learns_by_heart_is_surer_of_what_trained_it(small: Any) -> None:
    settings = small.settings(membership={"epochs": 30})
    x, y, classes = published._pool(small.people, 60, small.source.rule, np.random.default_rng(0))
    rows = torch.arange(60) % 2 == 0
    model = ModelSettings(hidden=16, bottleneck=8)
    heart, recipe = (published._confidence(settings, kind, model, x, y, rows, classes) for kind in published.RECIPES)
    assert heart.shape == (60, 2)
    gap = heart[rows, 0].mean() - heart[~rows, 0].mean()
    assert gap > 0.4
    assert recipe[rows, 0].mean() - recipe[~rows, 0].mean() < gap
