"""Formants from linear prediction of the spectrum below 5.5 kHz.

Selective linear prediction (J. Makhoul, "Linear prediction: a tutorial review", Proc. IEEE 63, 1975, section
IV-B): the autocorrelation of a part of the power spectrum gives an all-pole model of that part; the model's
peaks are the formants. The bandwidth follows from the bend of the peak: near a resonance
|H|² ∝ 1/((f − f₀)² + (b/2)²), so d²ln|H|²/df² = −8/b².
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


def formants(power: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Frequencies and bandwidths in hertz of F1, F2, F3, and where they were found.

    Args:
        power: short power spectra of voiced frames; [V, 257].

    Returns:
        frequency [V, 3], bandwidth [V, 3], found [V, 3] (bool).
    """
    to_lags, cosine, sine = _tables(power.device)
    predictor = _levinson(power[:, : len(to_lags)] @ to_lags)
    envelope = -((predictor @ cosine).square() + (predictor @ sine).square()).clamp_min(1e-12).log()
    left, middle, right = envelope[:, :-2], envelope[:, 1:-1], envelope[:, 2:]
    bend = left - 2.0 * middle + right
    peak = (middle > left) & (middle >= right)
    hertz = torch.arange(1, middle.shape[1] + 1, device=power.device) * STEP
    frequencies, widths, found = [], [], []
    above = torch.zeros(len(power), 1, device=power.device)
    for low, high in RANGES:
        allowed = peak & (hertz >= low) & (hertz <= high) & (hertz > above + APART)
        value, index = middle.masked_fill(~allowed, -torch.inf).max(1, keepdim=True)
        there = value > -torch.inf
        a, c, d = left.gather(1, index), right.gather(1, index), bend.gather(1, index).clamp_max(-1e-6)
        frequency = hertz[index] + STEP * (0.5 * (a - c) / d).clamp(-0.5, 0.5)
        above = torch.where(there, frequency, above)
        frequencies.append(frequency)
        widths.append(STEP * (-8.0 / d).sqrt())
        found.append(there)
    return torch.cat(frequencies, 1), torch.cat(widths, 1), torch.cat(found, 1)


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
