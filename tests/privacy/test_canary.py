"""A small canary audit of private steps: the claim holds, and steps whose noise was forgotten are found out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
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


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_claim_stays_above_what_canaries_show(benchmark_module: ModuleType, unit: str, rate: float) -> None:
    noise = noise_for(1.0, benchmark_module.DELTA, rate, 2)
    assert benchmark_module.audit(200, 2, rate, noise, "ecan", unit, **SURE) <= 1.0


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
@pytest.mark.parametrize(
    ("method", "rate", "steps"), [("ecan", 1.0, 2), ("aad", 1.0, 2), ("ecan", 0.25, 12), ("aad", 0.25, 12)]
)
def test_steps_without_noise_are_found_out(
    benchmark_module: ModuleType, unit: str, method: str, rate: float, steps: int
) -> None:
    assert benchmark_module.audit(200, steps, rate, 0.0, method, unit, **SURE) > 1.0


def test_a_steps_evidence_is_the_mixtures_over_who_was_drawn(benchmark_module: ModuleType) -> None:
    """Against the densities themselves: canaries along different axes, so that none disturbs another."""
    rate, std, lengths = 0.25, 0.7, np.array([1.0, 0.5, 0.2])
    summed = np.array([0.9, -0.3, 0.4, 5.0])
    found = benchmark_module.evidence(np.diag(lengths) @ np.eye(3, 4), summed, std, rate)

    def density(around: np.ndarray) -> np.ndarray:
        return np.exp(-((summed[:3] - around) ** 2) / (2 * std**2))

    wanted = np.log((1 - rate) + rate * density(lengths) / density(np.zeros(3)))
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
