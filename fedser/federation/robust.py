"""Aggregation rules that bear some hostile sites. They keep all updates of a round, so memory grows with the sites.

A hostile update within the norm cannot be told from an honest one by looking at it alone; beside the others it can
be outvoted. All sites weigh the same here: a claimed count would be a vote. The results do not depend on the order
of arrival: each works on the updates in the order of the sites' names and, for sums, on the means' integer grid.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedser.errors import QuorumError
from fedser.federation.aggregate import GRID_BITS, FixedPointMean, check, quantise

_COLUMNS = 2**18  # values of one pass over all updates


class _AllUpdates:
    """Keeps every update, with its site's name."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[str, Tensor]] = []

    def add(self, flat: Tensor, weight: int, site: str = "") -> None:
        """Take in one update; the weight must be in range and counts for nothing.

        Raises:
            WireError: another length, a value that is not finite or too large, a weight out of range, or too
                many sites. Nothing has been added then.
        """
        check(flat, self._size, weight, len(self._kept))
        self._kept.append((site, flat))

    def _sorted(self) -> list[Tensor]:
        return [flat for _, flat in sorted(self._kept, key=lambda pair: pair[0])]


class TrimmedMean(_AllUpdates):
    """For each value, the mean without the ``trim`` share (rounded up) of sites at either end.

    Yin et al. 2018, "Byzantine-robust distributed learning", definition 2. At least one site is left over: three
    sites at any trim above 0 give the median.
    """

    def __init__(self, size: int, trim: float) -> None:
        super().__init__(size)
        self._trim = trim

    def result(self) -> Tensor:
        """The trimmed mean, float32 [P]; zeros before the first update."""
        count = len(self._kept)
        cut = min(math.ceil(self._trim * count - 1e-9), (count - 1) // 2)
        return _middle([flat for _, flat in self._kept], cut, self._size)


class Median(_AllUpdates):
    """For each value, the median over the sites; of an even number, the mean of the two in the middle.

    Yin et al. 2018, "Byzantine-robust distributed learning", definition 1.
    """

    def result(self) -> Tensor:
        """The median, float32 [P]; zeros before the first update."""
        return _middle([flat for _, flat in self._kept], (len(self._kept) - 1) // 2, self._size)


class MultiKrum(_AllUpdates):
    """The mean of the n − f updates that lie closest to their nearest others.

    Blanchard et al. 2017, "Machine learning with adversaries: Byzantine tolerant gradient descent", section 4: an
    update's score is the sum of its squared distances to its n − f − 2 nearest. Of equal scores, the site whose name
    comes first is taken.
    """

    def __init__(self, size: int, byzantine: int) -> None:
        super().__init__(size)
        self._byzantine = byzantine

    def result(self) -> Tensor:
        """The mean of the chosen updates, float32 [P]; zeros before the first update.

        Raises:
            QuorumError: not more than 2f + 2 updates, with which the rule promises nothing.
        """
        if not self._kept:
            return torch.zeros(self._size)
        flats, least = self._sorted(), 2 * self._byzantine + 3
        if len(flats) < least:
            raise QuorumError(
                f"Multi-Krum against {self._byzantine} hostile sites needs {least} updates, and {len(flats)} came.",
                "Invite more sites, lower 'byzantine', or choose the rule median.",
            )
        mean = FixedPointMean(self._size)
        for place in krum(flats, self._byzantine)[: len(flats) - self._byzantine]:
            mean.add(flats[place], 1)
        return mean.result()


def krum(flats: list[Tensor], byzantine: int) -> list[int]:
    """Places of the updates by rising score; equal scores in the order given."""
    count = len(flats)
    products = torch.zeros(count, count, dtype=torch.float64)
    for start in range(0, len(flats[0]), _COLUMNS):
        block = torch.stack([flat[start : start + _COLUMNS] for flat in flats]).double()
        products += block @ block.T
    squares = products.diagonal()
    distances = (squares[:, None] + squares[None] - 2 * products).clamp(min=0)
    distances.fill_diagonal_(torch.inf)  # an update is no neighbour of its own
    nearest = distances.sort(dim=1).values[:, : count - byzantine - 2]
    scores = nearest.sum(dim=1).tolist()
    return sorted(range(count), key=lambda place: scores[place])


def _middle(flats: list[Tensor], cut: int, size: int) -> Tensor:
    """For each value, the mean over the sites without the ``cut`` smallest and largest; summed in integers."""
    result = torch.zeros(size)
    if not flats:
        return result
    left = len(flats) - 2 * cut
    for start in range(0, size, _COLUMNS):
        block = quantise(torch.stack([flat[start : start + _COLUMNS] for flat in flats]))
        kept = block.sort(dim=0).values[cut : len(flats) - cut]
        result[start : start + _COLUMNS] = (kept.sum(dim=0).double() / (left * 2**GRID_BITS)).float()
    return result
