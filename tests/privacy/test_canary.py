"""A small canary audit of private steps: the claim holds, and steps whose noise was forgotten are found out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fedser.privacy.accountant import noise_for

PLACE = Path(__file__).parents[2] / "benchmarks" / "privacy" / "canary.py"
SURE = {"sure": 1 - 1e-6, "delta": 1e-9}  # a smaller δ than the claim's only makes the audit stricter


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fedser_benchmark_canary", PLACE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_claim_stays_above_what_canaries_show(benchmark_module: ModuleType) -> None:
    noise = noise_for(1.0, benchmark_module.DELTA, 1.0, 2)
    assert benchmark_module.audit(200, 2, 1.0, noise, **SURE) <= 1.0


@pytest.mark.parametrize("method", ["ecan", "aad"])
def test_steps_without_noise_are_found_out(benchmark_module: ModuleType, method: str) -> None:
    assert benchmark_module.audit(200, 2, 1.0, 0.0, method, **SURE) > 1.0
