"""Simulated federations under the site unit: noised by the same gate as over a network, and refused where unsound."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fedser.adapt import Schedule, make
from fedser.compute import generator
from fedser.config import validate
from fedser.errors import PrivacyError, QuorumError
from fedser.evaluate.federate import Joined, federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.policy import Policy
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, ModelSettings, initialise

ROUNDS = 2


def run(privacy: dict[str, Any], *, method: str = "ecan", watch: Any = None, **settings: Any) -> Joined:
    model = EmotionClassifier(ModelSettings(hidden=16, depth=2, bottleneck=4), (6,), ("anger", "neutral", "sadness"))
    initialise(model, generator("test federate"))
    members = []
    for number in range(3):
        x = torch.randn(24, 6, generator=generator("test federate data", number)) + number / 4
        members.append(SiteWorld(f"site-{number}", (), LocalData(model.eval(), x, speakers=2), None))  # type: ignore[arg-type]
    return federate(
        members,
        model,
        make(method),
        Schedule(steps=8, batch_size=16, learning_rate=0.01),
        validate(RoundSettings, {"aggregation": {"rate": 1.0, **settings}}),
        validate(Policy, {"radius": 1e6, "privacy": privacy}),
        study="study",
        rounds=ROUNDS,
        personal_steps=2,
        seed=0,
        watch=watch,
    )


def flat(joined: Joined) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in joined.tensors.values()])


def test_the_same_seed_gives_other_noise() -> None:
    """``--seed`` reaches the training, and not the noise."""
    plain, private = {"unit": "none"}, {"unit": "site", "clip": 0.1, "releases": ROUNDS}
    assert torch.equal(flat(run(plain)), flat(run(plain)))
    assert not torch.equal(flat(run(private)), flat(run(private)))


def test_noise_moves_the_joint_model_as_far_as_the_policy_says() -> None:
    noise, clip = 50.0, 0.1
    private = run({"unit": "site", "clip": clip, "noise": noise})
    moved = flat(private) - flat(run({"unit": "none"}))
    expected = noise * clip * (ROUNDS * len(moved) / 3) ** 0.5  # the mean of three sites, summed over the rounds
    assert 0.7 * expected < float(moved.norm()) < 1.3 * expected


def test_a_spent_budget_ends_the_rounds() -> None:
    with pytest.raises(QuorumError, match="Round 2"):
        run({"unit": "site", "epsilon": 1.0, "noise": 5.0})


@pytest.mark.parametrize(
    ("privacy", "changes", "reason"),
    [
        ({"unit": "site"}, {"weighting": "counts"}, "Weights"),
        ({"unit": "utterance"}, {"method": "shot"}, "shot"),
    ],
)
def test_what_is_unsound_is_refused_before_anything_runs(
    privacy: dict[str, Any], changes: dict[str, Any], reason: str
) -> None:
    watched: list[int] = []
    with pytest.raises(PrivacyError, match=reason) as caught:
        run(privacy, watch=lambda number, _: watched.append(number), **changes)
    assert caught.value.hint
    assert watched == []
