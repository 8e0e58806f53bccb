"""The site as the unit of privacy: its whole update clipped, put on a public grid, and noised with integers.

Neighbours are the rounds with and without this site's data: its update u, or none (zeros in u's place). The order of
steps, for the local form and for a share of the central one:

1. clip to L2 norm C (an update that is not finite counts as zeros: a site answers whatever its data did);
2. round to the nearest multiple of a public grid γ, which adds at most γ·√P/2 to the norm: the sensitivity is
   Δ = C + γ·√P/2, and the integers are checked against it exactly (:func:`on_grid`);
3. add a discrete Gaussian of σ = noise·Δ/γ grid steps (:mod:`fedser.privacy.discrete`): 1/(2·noise²)-zCDP.

Whatever follows (encoding, averaging) works on the noised integers alone. In the central form each site adds a share of
variance σ²/h, h the least number of honest sites by its own policy, and the sum of h shares protects (Kairouz, Liu and
Steinke 2021, "The distributed discrete Gaussian mechanism", arXiv 2102.06387, theorem 1).
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.privacy.randomness import discrete_gaussian

FINENESS = 64  # grid steps in C, for each √P: rounding adds less than 1/128 of C to the sensitivity
LEAST_SHARE = 4.0  # grid steps: sums of shares as narrow as one step are not nearly a discrete Gaussian


def grid_of(clip: float, values: int) -> float:
    """The public grid γ of updates with ``values`` entries: a power of two, at most C/(64·√P).

    Args:
        clip: C.
        values: P.
    """
    return 2.0 ** math.floor(math.log2(clip / (FINENESS * math.sqrt(max(values, 1)))))


def sensitivity(clip: float, grid: float, values: int) -> float:
    """Δ: the longest that :func:`on_grid` can be, in the units of ``clip``."""
    return clip + grid * math.sqrt(values) / 2


def on_grid(flat: Tensor, clip: float, grid: float) -> NDArray[np.int64]:
    """An update in whole grid steps, of L2 norm at most ``sensitivity(clip, grid, P) / grid``, checked in integers.

    Args:
        flat: [P]; zeros in its place where it is not finite.
        clip: the longest L2 norm C before rounding.
        grid: the grid's step γ.

    Returns:
        Integers [P].
    """
    values = flat.detach().cpu().double().numpy()
    norm = float(np.linalg.norm(values)) if np.isfinite(values).all() else math.inf
    if not math.isfinite(norm):
        return np.zeros(len(values), dtype=np.int64)
    most = Fraction(sensitivity(clip, grid, len(values))) / Fraction(grid)
    scale = min(1.0, clip / norm) / grid if norm else 0.0
    while True:  # floating point may leave a scaled vector a little too long
        steps = np.rint(values * scale).astype(np.int64)
        if int(np.dot(steps, steps)) <= most**2:
            return steps
        scale *= 1 - 2.0**-30


def noised(integers: NDArray[np.int64], std: float) -> NDArray[np.int64]:
    """Integers plus a discrete Gaussian of ``std`` grid steps each."""
    return integers + discrete_gaussian(len(integers), std)


def released(flat: Tensor, clip: float, noise: float) -> Tensor:
    """An update as it may leave in the local form: float32 [P], zeros plus noise where it was not finite.

    Args:
        flat: the update [P].
        clip: C.
        noise: standard deviation, in sensitivities.
    """
    grid = grid_of(clip, len(flat))
    steps = noised(on_grid(flat, clip, grid), noise * sensitivity(clip, grid, len(flat)) / grid)
    return torch.from_numpy(steps.astype(np.float64) * grid).float()


def share_std(clip: float, noise: float, values: int, honest: int, grid: float | None = None) -> float:
    """Standard deviation, in grid steps, of one site's share: the target's variance divided by ``honest``.

    Args:
        clip: C.
        noise: that the ``honest`` shares together are to have, in sensitivities.
        values: P.
        honest: the least number of honest sites in a sum, by the site's own policy.
        grid: γ; :func:`grid_of` when None.

    Raises:
        ValueError: the share is narrower than ``LEAST_SHARE`` grid steps.
    """
    grid = grid_of(clip, values) if grid is None else grid
    std = noise * sensitivity(clip, grid, values) / grid / math.sqrt(honest)
    if std < LEAST_SHARE:
        raise ValueError(f"a share of {std:.3g} grid steps is too narrow for a sum of shares")
    return std


def noise_of_sum(noise: float, std: float, values: int, shares: int) -> float:
    """The noise, in sensitivities, that a sum of shares is worth: ``noise`` less what the shares' steps leave.

    Theorem 1 of Kairouz, Liu and Steinke 2021: a sum of n shares of parameter s is ½ε²-concentrated DP with
    ε² = Δ²/(n·s²) + τ·P/2 and τ = 10·Σ_{k<n} exp(−2π²·s²·k/(k + 1)). One release of a single discrete Gaussian with
    noise 1/ε costs the same.

    Args:
        noise: Δ-relative standard deviation that the ``shares`` together are to have.
        std: s, of one share in grid steps.
        values: P.
        shares: n, the least number of honest ones in a sum.
    """
    tau = 10 * math.fsum(math.exp(-2 * math.pi**2 * std**2 * k / (k + 1)) for k in range(1, shares))
    return 1 / math.sqrt(1 / noise**2 + tau * values / 2)


def noise_of_share(noise: float, honest: int) -> float:
    """What protects where all other sites of a sum collude with the provider: this site's own share."""
    return noise / math.sqrt(honest)
