"""Counts, means and sums of squared deviations: exact to add to, safe in floating point.

An utterance counts once, however long it is: a log-mel spectrogram enters by the mean and the variance of
each band over its frames, a vector of functionals by its values (with no variance inside the utterance).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# A standard deviation below this part of the site's counts as this part: a speaker's constant
# dimension must not turn noise into large z-scores.
FLOOR = 0.01


@dataclass(frozen=True)
class Moments:
    """Statistics of some utterances.

    Attributes:
        count: number of utterances n.
        mean: [D] float64.
        m2: [D] float64, the sum over utterances of squared deviations from the mean.
    """

    count: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, means: Tensor, variances: Tensor) -> Moments:
        """Statistics of utterances given by their own means and variances, both [N, D] float64, N ≥ 1."""
        mean = means.mean(dim=0)
        return cls(len(means), mean, ((means - mean).square() + variances).sum(dim=0))

    @property
    def variance(self) -> Tensor:
        """Population variance, [D]."""
        return self.m2 / self.count

    def add(self, other: Moments) -> Moments:
        """Statistics of both groups of utterances together (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        count = self.count + other.count
        gap = other.mean - self.mean
        return Moments(
            count,
            self.mean + gap * (other.count / count),
            self.m2 + other.m2 + gap.square() * (self.count * other.count / count),
        )

    def shrunk(self, site: Moments, kappa: float) -> tuple[Tensor, Tensor]:
        """Mean and variance, both [D], after κ pseudo-utterances of the site are mixed in.

        First and second moments are averaged with the weights n and κ: mean = (n m_s + κ m)/(n + κ), and the
        same for E[x²]. Written around the site's mean it needs no difference of large numbers: with
        d = m_s − m and w = n/(n + κ), mean = m + w d and variance = w v_s + (1 − w) v + w (1 − w) d².
        """
        weight = self.count / (self.count + kappa)
        gap = self.mean - site.mean
        spread = weight * self.variance + (1 - weight) * site.variance
        return site.mean + weight * gap, spread + weight * (1 - weight) * gap.square()


def summaries(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each utterance per dimension or band, both [N, D] float64.

    Args:
        raw: [N, D] functionals (variance zero) or [N, D, frames] spectrograms.
    """
    values = raw.to(dtype=torch.float64)
    if values.dim() == 2:
        return values, torch.zeros_like(values)
    return values.mean(dim=2), values.var(dim=2, correction=0)


def profiles(raw: Tensor) -> Tensor:
    """One vector [N, D] float64 for each utterance by which speakers are compared.

    Functionals as they are; of a spectrogram the level that each band exceeds in a tenth of the frames: means
    over frames tell more of pauses and padding than of voices.
    """
    if raw.dim() == 2:
        return raw.to(dtype=torch.float64)
    rank = max(1, math.ceil(0.9 * raw.shape[2]))
    return raw.kthvalue(rank, dim=2).values.to(dtype=torch.float64)


def inverse_scale(variance: Tensor, site: Moments) -> Tensor:
    """1/standard deviation, [D], floored by the site's; zero where the site has no spread at all.

    A dimension that never varied at the site has no scale and says nothing there: its z-score is zero.
    """
    reference = site.variance.sqrt()
    dead = reference <= 1e-9 * (1e-9 + site.mean.abs())
    scale = torch.maximum(variance.sqrt(), FLOOR * reference)
    return torch.where(dead, 0.0, 1.0 / torch.where(dead, 1.0, scale))
