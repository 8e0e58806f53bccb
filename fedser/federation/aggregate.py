"""Means of validated updates, taken in one at a time: pure arithmetic.

Means accumulate on a fixed-point grid in 64-bit integers. Integer addition is associative, so the order in
which sites answer cannot change one bit of the model; floating-point sums do not have that property.
Rules that need all updates beside each other are in :mod:`fedser.federation.robust`.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from fedser.errors import WireError
from fedser.federation.layout import norm as length

# The grid's step is 2^-24, about float32's own resolution for weights near 1. A value below 2^15 times a
# weight up to 2^8, summed over up to 2^15 sites, stays below 2^62.
GRID_BITS = 24
LARGEST_VALUE = 2.0**15
LARGEST_WEIGHT = 2**8
MOST_SITES = 2**15
BLOCK = 2**20  # values that are worked on at a time: copies in higher precision stay small

Weighting = Literal["uniform", "counts"]


class Rule(Protocol):
    """Takes in one update after the other and makes one of them."""

    def add(self, flat: Tensor, weight: int, site: str = "") -> None:
        """Take in one update, float32 [P], with a weight of 1 to ``LARGEST_WEIGHT``, and whose it is."""

    def result(self) -> Tensor:
        """The joint update, float32 [P]; zeros before the first one."""


class FixedPointMean:
    """The weighted mean, bit-identical for every order of arrival; its memory does not grow with the sites.

    McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data",
    algorithm 1, on changes in place of weights.
    """

    def __init__(self, size: int) -> None:
        self._sum = torch.zeros(size, dtype=torch.int64)
        self._weight = 0
        self._count = 0

    def add(self, flat: Tensor, weight: int, site: str = "") -> None:
        """Take in one update.

        Raises:
            WireError: another length, a value that is not finite or too large, a weight out of range, or too
                many sites. Nothing has been added then.
        """
        check(flat, len(self._sum), weight, self._count)
        for start in range(0, len(flat), BLOCK):
            part = slice(start, start + BLOCK)
            self._sum[part] += quantise(flat[part]) * weight
        self._weight += weight
        self._count += 1

    def result(self) -> Tensor:
        """The mean, float32 [P]; zeros before the first update."""
        if not self._weight:
            return torch.zeros(len(self._sum))
        scale = self._weight * 2**GRID_BITS
        return torch.cat([(part.double() / scale).float() for part in torch.split(self._sum, BLOCK)])


class NormBoundedMean(FixedPointMean):
    """The weighted mean of updates that are first shortened to a public L2 norm where they are longer.

    Sun et al. 2019, "Can you really backdoor federated learning?" (arXiv 1911.07963), eq. 2. No site moves the
    model by more than its share of ``bound``; within it, it may push where it likes. The peak stays flat.
    """

    def __init__(self, size: int, bound: float) -> None:
        super().__init__(size)
        self._bound = bound

    def add(self, flat: Tensor, weight: int, site: str = "") -> None:
        """Take in one update.

        Raises:
            WireError: as for the mean; nothing has been added then.
        """
        check(flat, len(self._sum), weight, self._count)
        norm = length(flat)
        if norm > self._bound:
            flat = (flat.double() * (self._bound / norm)).float()
        super().add(flat, weight, site)


def check(flat: Tensor, size: int, weight: int, count: int) -> None:
    """Check one update before a rule takes it in.

    Args:
        flat: the update.
        size: the model's length.
        weight: of the update.
        count: updates that were taken in before it.

    Raises:
        WireError: another length, a value that is not finite or too large, a weight out of range, or too many.
    """
    if flat.shape != (size,):
        raise WireError("An update has another length than the model.", "Refuse this site's update.")
    if not bool(torch.isfinite(flat).all()) or bool((flat.abs() >= LARGEST_VALUE).any()):
        raise WireError("An update holds values that are not finite or too large.", "Refuse it.")
    if not 1 <= weight <= LARGEST_WEIGHT or count >= MOST_SITES:
        raise WireError(f"A weight of {weight} is out of range.", f"Use 1 to {LARGEST_WEIGHT}.")


def quantise(flat: Tensor) -> Tensor:
    """A flat tensor on the fixed-point grid, int64 [P]; half-way values go to the even neighbour."""
    scaled: Tensor = torch.round(flat.double() * 2**GRID_BITS)
    return scaled.to(torch.int64)


def weight_of(utterances: int | None, weighting: Weighting, unit: int = 50) -> int:
    """A site's weight: 1, or its utterances in units of ``unit``, at least 1 and at most ``LARGEST_WEIGHT``.

    The bound keeps a site that claims 10^12 utterances from replacing the model.
    """
    if weighting == "uniform" or utterances is None:
        return 1
    return min(max(round(utterances / unit), 1), LARGEST_WEIGHT)
