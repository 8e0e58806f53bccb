"""A simulated federation's updates in fewer bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fedser.adapt import Schedule, make
from fedser.compute import generator
from fedser.config import validate
from fedser.errors import ConfigError, QuorumError
from fedser.evaluate.federate import federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.policy import Policy
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, ModelSettings, initialise


def joint(encoding: str, policy: Policy | None = None) -> Tensor:
    model = EmotionClassifier(ModelSettings(hidden=16, depth=2, bottleneck=4), (6,), ("anger", "neutral", "sadness"))
    initialise(model, generator("test federate"))
    members = []
    for number in range(3):
        x = torch.randn(24, 6, generator=generator("test federate data", number)) + number / 4
        members.append(SiteWorld(f"site-{number}", (), LocalData(model.eval(), x, speakers=2), None))  # type: ignore[arg-type]
    joined = federate(
        members,
        model,
        make("ecan"),
        Schedule(steps=8, batch_size=16, learning_rate=0.01),
        validate(RoundSettings, {"encoding": encoding, "aggregation": {"rate": 1.0}}),
        policy or Policy(),
        study="study",
        rounds=2,
        personal_steps=2,
        seed=0,
    )
    assert joined.refusals == []
    return torch.cat([tensor.flatten() for tensor in joined.tensors.values()])


def test_encodings_change_the_joint_model_a_little() -> None:
    exact = joint("f32")
    assert torch.equal(joint("f32"), exact)
    for encoding, most in (("f16", 1e-3), ("i8", 1e-2)):
        difference = float((joint(encoding) - exact).norm() / exact.norm())
        assert 0 < difference < most


def test_an_encoding_that_policies_forbid_or_nobody_knows() -> None:
    with pytest.raises(QuorumError, match="0 valid updates"):
        joint("i8", Policy(encodings=("f32",)))
    with pytest.raises(ConfigError, match="encoding"):
        joint("f8")
