"""The malicious server: it reads inputs where nothing defends, and none under the gate and under noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedser.attacks.findings import Finding
from fedser.attacks.imprint import Server, bare
from fedser.attacks.sites import Defence, defended, undefended
from fedser.federation.policy import Policy
from fedser.models import EmotionClassifier, ModelSettings
from fedser.privacy.settings import PrivacySettings


def attacked(small: Any, defence: Defence) -> list[Finding]:
    unit = defence.policy.privacy.unit
    rows = np.concatenate(list(small.victims.rows.values()))[:60]
    known = small.source.site(small.known, np.concatenate(list(small.known.rows.values())), unit).x
    victim = small.source.site(small.victims, rows, unit)
    return Server(small.settings(), small.source, defence, small.keys, victim, [], known).run()


def test_without_a_defence_inputs_come_back(small: Any) -> None:
    """The control: a whole layer of crafted units reads out what it gets, in the first layer and in a deeper one."""
    first, deep, few = attacked(small, undefended())
    assert first.value > 6  # a tenth of the inputs, the lab's own limit for a control
    assert deep.value > 5
    assert first.role == deep.role == "control"
    assert first.kept
    assert few.role == "figure"


def test_the_default_gate_refuses_both_layers(small: Any) -> None:
    first, deep, _ = attacked(small, defended("default", Policy(), small.keys))
    assert first.value == deep.value == 0
    assert "LAYOUT" in first.where
    assert "TRAP" in deep.where


def test_a_gate_that_lets_the_first_layer_go_and_looks_at_no_traps_is_read(small: Any) -> None:
    """The case that must fail: without these two checks the real site gives its inputs away."""
    open_policy = Policy(leave="all", trap_alone=1.0, trap_pairs=1e9)
    first, _, _ = attacked(small, defended("private", open_policy, small.keys))
    assert first.value > 6
    assert first.kept is False


@pytest.mark.parametrize("unit", ["site", "speaker"])
def test_under_noise_nothing_comes_back_even_without_these_checks(small: Any, unit: str) -> None:
    privacy = PrivacySettings(unit=unit, epsilon=8.0, releases=20, trained="all")  # type: ignore[arg-type]
    policy = Policy(leave="all", trap_alone=1.0, trap_pairs=1e9, privacy=privacy)
    found = attacked(small, defended("private", policy, small.keys))
    assert [one.value for one in found] == [0, 0, 0]
    assert all(one.kept for one in found)
    assert not any("refused" in one.where for one in found)


def test_a_malicious_provider_publishes_no_dropout(small: Any) -> None:
    from dataclasses import replace

    model = EmotionClassifier(ModelSettings(hidden=8, bottleneck=4, dropout=0.5), (24,), ("a", "b"))
    plain = bare(replace(small.source, model=model)).model
    assert [module.p for module in plain.modules() if hasattr(module, "p")] == [0.0, 0.0]
    assert [module.p for module in model.modules() if hasattr(module, "p")] == [0.5, 0.5]
