"""What one unit moves, from manifests to the clipped sum: a short run of the benchmark's search."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PLACE = Path(__file__).parents[2] / "benchmarks" / "privacy" / "sensitivity.py"


@pytest.fixture(scope="module")
def search() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fedser_benchmark_sensitivity", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def world(search: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    return list(search.neighbours(tmp_path_factory.mktemp("speech"), 1, speakers=3, utterances=12))


def test_no_unit_moves_a_sum_by_more_than_the_clip_from_files_on(search: ModuleType, world: list[object]) -> None:
    for unit in search.UNITS:
        for method in search.METHODS:
            found = search.series(world, method, unit, random=25, optimised=3, seed=7)
            assert 0.3 < max(found.random, found.optimised) <= 1.0, found


def test_the_same_search_catches_ordinary_clipping_of_a_coupled_loss(search: ModuleType, world: list[object]) -> None:
    assert search.control(world, 20, 7) > 1.2


def test_without_the_halved_radius_the_search_finds_a_group_that_moves_by_more(
    search: ModuleType, world: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedser.privacy.groups.Groups.radius", lambda self, clip: clip)
    assert search.series(world, "aad", "utterance", random=60, optimised=10, seed=7).optimised > 1.2
