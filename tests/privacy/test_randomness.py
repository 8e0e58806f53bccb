"""Noise and coins: the right distributions, from the operating system, and from no seed.

The bounds of the statistical tests are wide enough to fail by chance less often than once in 10⁹ runs.
"""

from __future__ import annotations

import ast
import math
import random
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import chi2, norm

from fedser.privacy import discrete, randomness
from fedser.privacy.randomness import bernoulli, discrete_gaussian, gaussian, uniform_integers

CHANCE = 1e-10
FOLDER = Path(randomness.__file__).parent


def surprise(counts: np.ndarray, expected: np.ndarray) -> bool:
    """Whether counts differ from what was expected more than chance allows: χ² with one degree less."""
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return statistic > float(chi2.isf(CHANCE, len(counts) - 1))


def gaussian_masses(std: float, reach: int) -> np.ndarray:
    """Probabilities of −reach … reach, the tails in the outermost, summed term by term."""
    far = range(-40 * math.ceil(std) - reach, 40 * math.ceil(std) + reach + 1)
    weights = {n: math.exp(-(n**2) / (2 * std**2)) for n in far}
    total = math.fsum(weights.values())
    inside = [weights[n] / total for n in range(-reach, reach + 1)]
    outside = (1 - math.fsum(inside)) / 2
    inside[0] += outside
    inside[-1] += outside
    return np.array(inside)


def histogram(values: np.ndarray, reach: int) -> np.ndarray:
    return np.bincount(np.clip(values, -reach, reach) + reach, minlength=2 * reach + 1)


@pytest.mark.parametrize(("std", "reach"), [(0.4, 1), (1.0, 3), (2.5, 8), (11.3, 30)])
def test_the_discrete_gaussian_has_its_probabilities(std: float, reach: int) -> None:
    size = 200_000
    counts = histogram(discrete_gaussian(size, std), reach)
    assert not surprise(counts, size * gaussian_masses(std, reach))
    wrong = gaussian_masses(1.03 * std, reach)  # the test must notice 3 % more or less noise
    assert surprise(counts, size * wrong)


def test_a_wide_discrete_gaussian_is_a_gaussian() -> None:
    std, size = 2.0**18, 200_000
    edges = norm.ppf(np.linspace(0, 1, 41)[1:-1])
    counts = np.bincount(np.searchsorted(edges, discrete_gaussian(size, std) / std), minlength=40)
    assert not surprise(counts, np.full(40, size / 40))


@pytest.mark.parametrize("std", [0.7, 5.0])
def test_coins_decided_in_exact_arithmetic_agree(monkeypatch: pytest.MonkeyPatch, std: float) -> None:
    """Every coin through the path that one in 10¹² takes."""
    usual = discrete.coins
    monkeypatch.setattr(discrete, "coins", lambda gamma, exact: usual(gamma, exact, doubt=10.0))
    size, reach = 4000, 2
    assert not surprise(histogram(discrete.sample(size, std), reach), size * gaussian_masses(std, reach))


def test_a_coin_on_the_edge_is_decided_by_more_bits() -> None:
    bits = int(Decimal(2) ** 53 * Decimal("-0.5").exp())  # the 53 bits that exp(−1/2) itself begins with
    assert discrete.below_exp(bits - 1, Fraction(1, 2))
    assert not discrete.below_exp(bits + 1, Fraction(1, 2))
    share = sum(discrete.below_exp(bits, Fraction(1, 2)) for _ in range(400)) / 400
    assert 0 < share < 1  # between them chance decides


@pytest.mark.parametrize("std", [1.0, 3.0])
def test_the_continuous_gaussian(std: float) -> None:
    size = 200_000
    edges = std * norm.ppf(np.linspace(0, 1, 41)[1:-1])
    values = gaussian(size, std)
    assert not surprise(np.bincount(np.searchsorted(edges, values), minlength=40), np.full(40, size / 40))
    assert abs(float(values.std()) / std - 1) < 7 / math.sqrt(2 * size)
    assert float(np.abs(values).max()) > 3.5 * std


def test_a_continuous_gaussian_is_no_single_transform() -> None:
    """A sum of four values reaches far more floating-point numbers than one: none is drawn twice."""
    assert len(np.unique(gaussian(300_000, 1.0))) == 300_000
    assert (gaussian(10, 0.0) == 0).all()


@pytest.mark.parametrize(("low", "high"), [(0, 3), (-5, 6), (0, 256), (0, 1)])
def test_integers_are_uniform(low: int, high: int) -> None:
    size, span = 60_000, high - low
    values = uniform_integers(low, high, size)
    assert values.min() == low
    assert values.max() == high - 1
    if span > 1:
        assert not surprise(np.bincount(values - low, minlength=span), np.full(span, size / span))


def test_the_widest_range_of_integers() -> None:
    assert (uniform_integers(-(2**62), 2**62, 1000) < 0).any()
    for low, high in ((0, 0), (3, 2), (0, 2**63 + 1)):
        with pytest.raises(ValueError, match="range"):
            uniform_integers(low, high, 1)


@pytest.mark.parametrize("p", [0.0, 1e-3, 0.1, 0.5, 1.0])
def test_coins(p: float) -> None:
    size = 300_000
    assert abs(int(bernoulli(p, size).sum()) - p * size) <= 7 * math.sqrt(size * p * (1 - p))


def test_no_probability_and_no_deviation_are_refused() -> None:
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="probability"):
            bernoulli(p, 1)
    for std in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="parameter"):
            discrete_gaussian(1, std)
    with pytest.raises(ValueError, match="deviation"):
        gaussian(1, -1.0)


def test_seeds_do_not_reach_the_noise() -> None:
    """The same seeds of every generator, twice: the draws differ."""
    drawn = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        drawn.append(
            (
                discrete_gaussian(50, 1e6).tobytes(),
                gaussian(50, 1.0).tobytes(),
                bernoulli(0.5, 500).tobytes(),
                uniform_integers(0, 2**62, 50).tobytes(),
                randomness.random_bytes(32),
            )
        )
    assert all(one != other for one, other in zip(*drawn, strict=True))


GENERATORS = {"random", "numpy.random", "torch.Generator", "secrets.SystemRandom", "fedser.compute"}
DRAWS = {
    "default_rng",
    "RandomState",
    "manual_seed",
    "randn",
    "rand",
    "randint",
    "randperm",
    "normal",
    "normal_",
    "seed",
}


def seeded(source: str) -> list[str]:
    """Calls and imports of a source text that draw from a generator with a state."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name in GENERATORS]
        elif isinstance(node, ast.ImportFrom) and node.module in GENERATORS:
            found.append(str(node.module))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in DRAWS:
            found.append(node.func.attr)
    return found


@pytest.mark.parametrize("path", [FOLDER / "randomness.py", FOLDER / "discrete.py"], ids=lambda path: path.name)
def test_the_modules_that_draw_know_no_generator(path: Path) -> None:
    assert seeded(path.read_text(encoding="utf-8")) == []


def test_a_generator_would_be_noticed() -> None:
    assert seeded("import numpy as np\nnp.random.default_rng(0).normal()\n")
    assert seeded("import torch\ntorch.randn(3)\n")
    assert seeded("from fedser.compute import generator\n")
