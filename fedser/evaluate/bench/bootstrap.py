"""Is one method better than another, or was it these speakers and these seeds? A paired bootstrap.

Speakers are resampled within each target corpus, seeds over the seeds (Efron and Tibshirani 1993, ch. 6 and 8.3), and
the mean over the pairs of the UAR is computed anew each time; both methods meet the same draws, so that what is hard
for both does not count. P-values are adjusted by Holm (1979) over the methods that the reference is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = Mapping[str, Iterable[Sequence[int]]]  # speaker → (true, answered, count)
Cells = Mapping[tuple[tuple[str, str], str, str], Counts]  # ((source, target), seed, method) → counts


@dataclass(frozen=True)
class Difference:
    """The reference less another method, in points of UAR.

    Attributes:
        mean: over pairs and seeds, as measured.
        low: 2.5 % of the resamples lie below.
        high: 2.5 % lie above.
        p: two-sided: twice the smaller share of resamples on either side of 0.
        holm: p adjusted for the number of comparisons.
        pairs: how many both have.
        seeds: how many both have for all these pairs.
    """

    mean: float
    low: float
    high: float
    p: float
    holm: float
    pairs: int
    seeds: int


def differences(
    cells: Cells, reference: str, others: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Difference]:
    """Compare one method with others.

    Args:
        cells: the counts behind each row.
        reference: name of the method.
        others: methods to compare it with; one without a common pair and seed is left out.
        resamples: B.
        seed: of the draws.
    """
    draws = _Draws(cells, resamples, seed)
    found = {}
    for other in others:
        if (grid := _grid(cells, (reference, other))) is None:
            continue
        pairs, seeds = grid
        ours, theirs = (draws.mean_uar(cells, name, pairs, seeds) for name in (reference, other))
        measured = float(ours[0] - theirs[0])
        spread = np.asarray(ours[1:] - theirs[1:])
        low, high = np.quantile(spread, (0.025, 0.975)).tolist()
        tail = 1 + min(int((spread <= 0).sum()), int((spread >= 0).sum()))
        p = min(1.0, 2 * tail / (len(spread) + 1))
        found[other] = (measured, low, high, p, len(pairs), len(seeds))
    adjusted = holm({name: values[3] for name, values in found.items()})
    return {
        name: Difference(100 * mean, 100 * low, 100 * high, p, adjusted[name], pairs, seeds)
        for name, (mean, low, high, p, pairs, seeds) in found.items()
    }


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's step-down adjustment (1979): the k-th smallest of m times m − k + 1, never falling, at most 1."""
    adjusted, largest = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = largest
    return adjusted


class _Draws:
    """Weights of speakers and seeds, drawn once for all methods. The first row is the sample as it is."""

    def __init__(self, cells: Cells, resamples: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._resamples = resamples
        names: dict[str, set[str]] = {}
        for ((_, target), _, _), counts in cells.items():
            names.setdefault(target, set()).update(counts)
        self._speakers = {target: sorted(own) for target, own in sorted(names.items())}
        self._weights = {target: self._draw(len(own)) for target, own in self._speakers.items()}
        self._by_seeds: dict[tuple[str, ...], Floats] = {}
        self._means: dict[tuple[str, tuple[tuple[str, str], ...], tuple[str, ...]], Floats] = {}

    def _draw(self, count: int) -> Floats:
        """How often each of ``count`` was drawn, [B + 1, count]."""
        drawn = self._random.multinomial(count, [1 / count] * count, size=self._resamples)
        return np.concatenate([np.ones((1, count)), drawn]).astype(np.float64)

    def mean_uar(self, cells: Cells, method: str, pairs: tuple[tuple[str, str], ...], seeds: tuple[str, ...]) -> Floats:
        """Mean over pairs and (weighted) seeds, [B + 1]."""
        if (method, pairs, seeds) not in self._means:
            self._means[method, pairs, seeds] = self._mean(cells, method, pairs, seeds)
        return self._means[method, pairs, seeds]

    def _mean(self, cells: Cells, method: str, pairs: tuple[tuple[str, str], ...], seeds: tuple[str, ...]) -> Floats:
        if seeds not in self._by_seeds:
            self._by_seeds[seeds] = self._draw(len(seeds)) / len(seeds)
        weights = self._by_seeds[seeds]
        total = np.zeros(self._resamples + 1)
        for pair in pairs:
            each = [self._uar(cells[pair, seed, method], pair[1]) for seed in seeds]
            total += (np.stack(each, axis=1) * weights).sum(axis=1)
        return total / len(pairs)

    def _uar(self, counts: Counts, target: str) -> Floats:
        """UAR of one cell under each draw of speakers, [B + 1]: the mean recall of the classes that occur."""
        place = {name: row for row, name in enumerate(self._speakers[target])}
        classes = 1 + max((true for own in counts.values() for true, _, _ in own), default=0)
        hits, totals = np.zeros((2, len(place), classes))
        for name, own in counts.items():
            for true, answered, count in own:
                totals[place[name], true] += count
                hits[place[name], true] += count * (true == answered)
        weights = self._weights[target]
        drawn, right = weights @ totals, weights @ hits
        recall = np.divide(right, drawn, out=np.zeros_like(right), where=drawn > 0)
        # A draw may miss every utterance that counts, where few speakers have any: it tells nothing of this cell.
        uar: Floats = recall.sum(axis=1) / np.maximum((drawn > 0).sum(axis=1), 1)
        return uar


def _grid(cells: Cells, methods: Sequence[str]) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]] | None:
    """Pairs and seeds that the methods have in common: the pairs of all of them, and the seeds that have all these."""
    pairs = set.intersection(*({pair for pair, _, name in cells if name == method} for method in methods))
    seeds = sorted({seed for pair, seed, name in cells if name in methods and pair in pairs})
    whole = tuple(s for s in seeds if all((pair, s, name) in cells for pair in pairs for name in methods))
    return (tuple(sorted(pairs)), whole) if pairs and whole else None
