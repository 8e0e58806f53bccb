"""Formants from linear prediction of the spectrum below 5.5 kHz.

Selective linear prediction (J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63, 1975, section
IV-B): the autocorrelation of a part of the power spectrum gives an all-pole model of that part; the model's
peaks are the formants.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE

SIZE = 512  # of the short spectrum
TOP = 5500.0
ORDER = 11
STEP = 25.0  # hertz between the points at which the model is evaluated
RANGES = ((200.0, 1000.0), (800.0, 2800.0), (1800.0, 4200.0))  # where F1, F2, F3 of adult voices lie
USUAL = (500.0, 1500.0, 2500.0)  # a neutral vocal tract
APART = 150.0  # least distance between neighbouring formants in hertz


@lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Power spectrum → autocorrelation [bins, ORDER+1]; predictor → cosines, sines [ORDER+1, points]."""
    bins = round(TOP * SIZE / SAMPLE_RATE)
    hertz = torch.arange(bins + 1, dtype=torch.float64) * SAMPLE_RATE / SIZE
    angle = torch.pi * torch.arange(bins + 1, dtype=torch.float64) / bins
    lag = torch.arange(ORDER + 1, dtype=torch.float64)
    # Pre-emphasis (1 − 0.97 z⁻¹) as a weight on the power.
    weight = 1.0 + 0.97**2 - 2.0 * 0.97 * torch.cos(2.0 * torch.pi * hertz / SAMPLE_RATE)
    weight[0] *= 0.5
    weight[-1] *= 0.5
    to_lags = torch.cos(angle[:, None] * lag) * weight[:, None]
    # A lag window of 60 Hz keeps single harmonics of high voices from passing as formants.
    to_lags = to_lags * torch.exp(-0.5 * (torch.pi * 60.0 / TOP * lag) ** 2)
    points = torch.arange(0.0, TOP, STEP, dtype=torch.float64) * torch.pi / TOP
    phase = lag[:, None] * points
    return to_lags.float().to(device), phase.cos().float().to(device), phase.sin().float().to(device)


def formants(power: Tensor) -> Tensor:
    """Frequencies of F1, F2, F3 in hertz; where no peak is found, USUAL stands in.

    Args:
        power: short power spectra of voiced frames; [V, 257].

    Returns:
        frequencies [V, 3].
    """
    to_lags, cosine, sine = _tables(power.device)
    predictor = _levinson(power[:, : len(to_lags)] @ to_lags)
    envelope = -((predictor @ cosine).square() + (predictor @ sine).square()).clamp_min(1e-12).log()
    left, middle, right = envelope[:, :-2], envelope[:, 1:-1], envelope[:, 2:]
    peak = (middle > left) & (middle >= right)
    hertz = torch.arange(1, middle.shape[1] + 1, device=power.device) * STEP
    frequencies = []
    above = torch.zeros(len(power), 1, device=power.device)
    for (low, high), usual in zip(RANGES, USUAL, strict=True):
        allowed = peak & (hertz >= low) & (hertz <= high) & (hertz > above + APART)
        height, index = middle.masked_fill(~allowed, -torch.inf).max(1, keepdim=True)
        there = height > -torch.inf
        a, b, c = (side.gather(1, index) for side in (left, middle, right))
        bend = (a - 2.0 * b + c).clamp_max(-1e-6)
        frequency = hertz[index] + STEP * (0.5 * (a - c) / bend).clamp(-0.5, 0.5)
        above = torch.where(there, frequency, above)
        frequencies.append(torch.where(there, frequency, usual))
    return torch.cat(frequencies, 1)


def _levinson(correlation: Tensor) -> Tensor:
    """Levinson–Durbin recursion, side by side: autocorrelations → predictors, both [V, p+1]."""
    correlation = correlation / correlation[:, :1].clamp_min(1e-12)
    predictor = torch.zeros_like(correlation)
    predictor[:, 0] = 1.0
    error = torch.full_like(correlation[:, 0], 1.0 + 1e-5)
    for order in range(1, correlation.shape[1]):
        reach = (predictor[:, :order] * correlation[:, 1 : order + 1].flip(1)).sum(1)
        reflection = (-reach / error).clamp(-0.9999, 0.9999)
        predictor[:, 1 : order + 1] += reflection[:, None] * predictor[:, :order].flip(1)
        error = error * (1.0 - reflection.square())
    return predictor
