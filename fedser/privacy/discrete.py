"""The discrete Gaussian, exactly: P(n) ∝ exp(−n² / 2σ²) on the integers.

Canonne, Kamath and Steinke 2020, "The discrete Gaussian for differential privacy" (arXiv 2004.00010), algorithms 2
and 3: a discrete Laplace value, kept with a probability that makes it Gaussian. They toss each coin of bias exp(−γ) in
rational arithmetic. Here many are tossed at once in floating point, and a coin whose random bits come so near to
exp(−γ) that rounding could decide it is tossed to its end in exact arithmetic (about one in 10¹²): the distribution
is the exact one, and no floating-point error stands in ε or δ.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fedser.privacy.randomness import bernoulli, random_bytes, uniform_integers, uniform_words

LARGEST_STD = 2.0**40
_CHUNK = 1 << 17
_BITS = 53
_DOUBT = (
    2.0**-40
)  # relative, and far above the floating-point error of exp(−γ) for γ < 40; beyond, no 53 bits but 0 matter

Exact = Callable[[int], Fraction]


def sample(size: int, std: float) -> NDArray[np.int64]:
    """``size`` independent values of the discrete Gaussian of parameter ``std`` (σ).

    Their standard deviation is at most σ (corollary 9), and nearly σ from σ = 1 on.

    Raises:
        ValueError: ``std`` is not positive or above 2⁴⁰.
    """
    if not 0 < std <= LARGEST_STD:
        raise ValueError(f"{std} is no parameter of a discrete Gaussian")
    found = np.empty(size, dtype=np.int64)
    filled = 0
    while filled < size:
        values = _proposals(min(2 * (size - filled) + 64, _CHUNK), std)[: size - filled]
        found[filled : filled + len(values)] = values
        filled += len(values)
    return found


def _proposals(tries: int, std: float) -> NDArray[np.int64]:
    """What is kept of ``tries`` discrete Laplace values: algorithm 3."""
    scale, square = int(std) + 1, Fraction(std) ** 2
    y = laplace(tries, scale)
    centre = square / scale
    gamma: NDArray[np.float64] = (np.abs(y) - float(centre)) ** 2 / (2 * float(square))
    return y[coins(gamma, lambda i: (abs(int(y[i])) - centre) ** 2 / (2 * square))]


def laplace(tries: int, scale: int) -> NDArray[np.int64]:
    """Values with P(n) ∝ exp(−|n| / scale), as many as are kept of ``tries``: algorithm 2."""
    rest = uniform_integers(0, scale, tries)
    rest = rest[coins(rest / scale, lambda i: Fraction(int(rest[i]), scale))]
    n: NDArray[np.int64] = rest + scale * _geometric(len(rest))
    negative = bernoulli(0.5, len(n))
    kept: NDArray[np.bool_] = ~negative | (n > 0)  # or 0 would be twice as likely
    n[negative] *= -1
    return n[kept]


def _geometric(size: int) -> NDArray[np.int64]:
    """How often a coin of bias 1/e shows heads in a row."""
    found = np.zeros(size, dtype=np.int64)
    running = np.arange(size)
    while len(running):
        running = running[coins(np.ones(len(running)), lambda _: Fraction(1))]
        found[running] += 1
    return found


def coins(gamma: NDArray[np.float64], exact: Exact, doubt: float = _DOUBT) -> NDArray[np.bool_]:
    """Coins that show true with probability exp(−γ), exactly.

    Args:
        gamma: [N], at least 0, right up to an absolute error of 2⁻⁴⁵ where it is below 40.
        exact: γ of the coin at an index.
        doubt: relative distance from exp(−γ) within which floating point may not decide.
    """
    bits = uniform_words(len(gamma)) >> np.uint64(64 - _BITS)
    u, p = bits.astype(np.float64) * 2.0**-_BITS, np.exp(-gamma)
    heads = u + 2.0**-_BITS <= p * (1 - doubt)  # the whole interval of numbers that begin with these bits
    tails = u > p * (1 + doubt)
    for i in np.flatnonzero(~(heads | tails)):
        heads[i] = below_exp(int(bits[i]), exact(int(i)))
    return heads


def below_exp(bits: int, gamma: Fraction) -> bool:
    """Whether a uniform number that begins with 53 ``bits`` lies below exp(−γ): bits are drawn until it is sure."""
    count = _BITS
    while True:
        context = Context(prec=count // 3 + 30)
        p = context.exp(-context.divide(Decimal(gamma.numerator), Decimal(gamma.denominator)))
        slack = context.multiply(p, context.scaleb(Decimal(1), -(context.prec - 10)))
        unit = context.power(Decimal(2), -count)
        low, high = context.multiply(Decimal(bits), unit), context.multiply(Decimal(bits + 1), unit)
        if high <= context.subtract(p, slack):
            return True
        if low >= context.add(p, slack):
            return False
        bits = bits << 64 | int.from_bytes(random_bytes(8), "little")
        count += 64
