"""A simulated federation under masks: the joint model of the plain one within the grid, and what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fedser.adapt import Schedule, make
from fedser.compute import generator
from fedser.config import validate
from fedser.errors import ConfigError
from fedser.evaluate.federate import federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.policy import Policy
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, ModelSettings, initialise

ROUNDS = 2


def joint(policy: Policy | None = None, sites: int = 3, **settings: Any) -> Tensor:
    model = EmotionClassifier(ModelSettings(hidden=16, depth=2, bottleneck=4), (6,), ("anger", "neutral", "sadness"))
    initialise(model, generator("test masked federate"))
    members = []
    for number in range(sites):
        x = torch.randn(24, 6, generator=generator("test masked federate data", number)) + number / 4
        members.append(SiteWorld(f"site-{number}", (), LocalData(model.eval(), x, speakers=2), None))  # type: ignore[arg-type]
    joined = federate(
        members,
        model,
        make("ecan"),
        Schedule(steps=8, batch_size=16, learning_rate=0.01),
        validate(RoundSettings, {"aggregation": {"rate": 1.0}, **settings}),
        policy or Policy(),
        study="study",
        rounds=ROUNDS,
        personal_steps=2,
        seed=0,
    )
    assert joined.refusals == []
    return torch.cat([tensor.flatten() for tensor in joined.tensors.values()])


def policy(**masking: Any) -> Policy:
    return validate(Policy, {"privacy": {"masking": masking}})


def test_masked_rounds_end_as_plain_ones_within_the_grid() -> None:
    plain, masked = joint(), joint(masked=True)
    difference = float((plain - masked).abs().max())
    assert 0 < difference < 20 * ROUNDS * 2.0**-21  # each round starts from what the one before rounded
    assert torch.equal(masked, joint(policy(required=True), masked=True))
    assert torch.equal(masked, joint(masked=True, masking={"modulus": 64}))


@pytest.mark.parametrize(
    ("chosen", "settings", "words"),
    [
        (policy(required=True), {}, "demands masked sums"),
        (policy(peers={"site-1": "0" * 64}), {"masked": True}, "new keys in every run"),
        (None, {"masked": True, "aggregation": {"rule": "median"}}, "single updates"),
        (None, {"masked": True, "encoding": "i8"}, "cancels no more"),
        (None, {"masked": True, "masking": {"threshold": 4}}, "cannot be reached"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_round(chosen: Policy | None, settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        joint(chosen, **settings)


def test_one_site_makes_no_masked_sum() -> None:
    with pytest.raises(ConfigError, match="a sum of one is its update"):
        joint(sites=1, masked=True)
