"""The benchmark of the recommended policy: who holds whom, and that study and policy are those of the repository."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "privacy"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("policy_utility")


def test_each_speaker_is_at_one_site_and_sites_are_alike(benchmark_module: ModuleType) -> None:
    speakers = [f"s{row % 50}" for row in range(400)]
    rows = benchmark_module.shared_out(speakers, 12, 0)
    assert sorted(row for own in rows for row in own) == list(range(400))
    held = [{speakers[row] for row in own} for own in rows]
    assert sum(len(own) for own in held) == 50
    assert {len(own) for own in held} == {4, 5}
    assert benchmark_module.shared_out(speakers, 12, 1) != rows


def test_a_policys_row_names_what_was_tried(benchmark_module: ModuleType) -> None:
    from fedser.config import load
    from fedser.federation.policy import Policy

    policy = load(Policy, FOLDER.parents[1] / "configs" / "policy" / "private.yaml")
    assert benchmark_module.named(policy) == "policy, ε = 8, groups: 250"
    assert policy.privacy.masking.honest == 12
