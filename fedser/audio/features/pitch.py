"""Fundamental frequency: normalised autocorrelation, candidates, and the best path through them.

After P. Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
ratio of a sampled sound", IFA Proceedings 17 (1993): the autocorrelation of the windowed frame is divided by
that of the window (eq. 8), local maxima compete (eqs. 23, 24), and a path search weighs jumps in octaves and
changes of voicing (eq. 27). The costs are his; the spectrum is limited to where the lower harmonics lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE, Group

WINDOW = 960  # 60 ms: three periods of 50 Hz
SIZE = 1280  # transform length: window and the longest lag fit without wrapping
LOWEST, HIGHEST = 60.0, 600.0  # hertz
CANDIDATES = 7
VOICING_THRESHOLD = 0.7
SILENCE_THRESHOLD = 0.1
OCTAVE_COST = 0.01
JUMP_COST = 0.35
VOICING_COST = 0.04  # a third of his: short voiced stretches are many in lively speech


@dataclass(frozen=True)
class Pitch:
    """F0 of every frame of a group.

    Attributes:
        frequency: hertz, 0 where unvoiced; [N].
        strength: normalised autocorrelation at the chosen period (the best one where unvoiced), 0 … 1; [N].
        voiced: bool [N].
    """

    frequency: Tensor
    strength: Tensor
    voiced: Tensor


@lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The window, its normalised autocorrelation at the lags in use, and the spectral weight."""
    window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
    longest = int(SAMPLE_RATE / LOWEST) + 2
    own = torch.fft.irfft(torch.fft.rfft(window, SIZE).abs() ** 2, SIZE)[: longest + 1]
    hertz = torch.arange(SIZE // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / SIZE
    # Full weight up to 1 kHz, none above 3 kHz: breath noise sits above, the strong harmonics below.
    weight = 0.5 + 0.5 * torch.cos(torch.pi * ((hertz - 1000.0) / 2000.0).clamp(0.0, 1.0))
    weight[:3] = 0.0  # below 30 Hz there is no voice, only rumble
    return window.float().to(device), (own / own[0]).float().to(device), weight.float().to(device)


def track(group: Group) -> Pitch:
    """Find F0 in every frame of a group."""
    lags, strengths, level = _candidates(group)
    frequency = SAMPLE_RATE / lags
    unvoiced = VOICING_THRESHOLD + (2.0 - level * (1.0 + VOICING_THRESHOLD) / SILENCE_THRESHOLD).clamp_min(0.0)
    local = strengths - OCTAVE_COST * torch.log2(lags * (LOWEST / SAMPLE_RATE))
    local = local.masked_fill(strengths <= 0.0, -1e3)
    local = torch.cat([local, unvoiced[:, None]], 1)
    pitch = torch.cat([torch.log2(frequency), torch.zeros_like(unvoiced)[:, None]], 1)
    state = _best_path(group.padded(local), group.padded(pitch), group.mask())[group.mask()]
    voiced = state < CANDIDATES
    chosen = torch.where(voiced, state, strengths.argmax(1))[:, None]
    return Pitch(
        frequency=torch.where(voiced, frequency.gather(1, chosen)[:, 0], 0.0),
        strength=strengths.gather(1, chosen)[:, 0],
        voiced=voiced,
    )


def spectra(group: Group, chosen: Tensor | None = None) -> Iterator[Tensor]:
    """Power spectra of the 60 ms frames, block by block, in bins of 12.5 Hz; [≤ BLOCK, SIZE/2+1]."""
    window = _tables(group.signal.device)[0]
    for block in group.blocks(WINDOW, chosen):
        spectrum = torch.fft.rfft(block * window, SIZE)
        yield spectrum.real.square() + spectrum.imag.square()


def periodicity(power: Tensor, frequency: Tensor) -> Tensor:
    """Share of the power that repeats with the period, over the whole band (Boersma, eq. 4).

    Args:
        power: as :func:`spectra` yields it; [V, SIZE/2+1].
        frequency: F0 in hertz; [V].
    """
    own = _tables(power.device)[1]
    correlation = torch.fft.irfft(power, SIZE)[:, : len(own)]
    correlation = correlation / (correlation[:, :1].clamp_min(1e-9) * own)
    lag = (SAMPLE_RATE / frequency).round().long()[:, None] + torch.arange(-1, 2, device=power.device)
    height: Tensor = correlation.gather(1, lag.clamp(0, len(own) - 1)).amax(1)
    return height


def _candidates(group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Periods in samples and their strengths [N, K], relative peak level [N]."""
    _, own, weight = _tables(group.signal.device)
    lags, strengths = [], []
    for power in spectra(group):
        correlation = torch.fft.irfft(power * weight, SIZE)[:, : len(own)]
        correlation = correlation / (correlation[:, :1].clamp_min(1e-9) * own)
        lag, strength = _peaks(correlation)
        lags.append(lag)
        strengths.append(strength)
    level = torch.cat([block.abs().amax(1) for block in group.blocks(WINDOW // 2)])
    return torch.cat(lags), torch.cat(strengths), level


def _peaks(correlation: Tensor) -> tuple[Tensor, Tensor]:
    """The strongest local maxima between the shortest and the longest period, interpolated; [N, K] twice."""
    first = int(SAMPLE_RATE / HIGHEST)
    left, middle, right = (
        correlation[:, first - 1 : -2],
        correlation[:, first:-1],
        correlation[:, first + 1 :],
    )
    peak = (middle > left) & (middle >= right) & (middle > 0.0)
    # A small price for long periods, so that strong multiples do not crowd out the period itself.
    lag = torch.arange(first, first + middle.shape[1], device=correlation.device, dtype=torch.float32)
    ranked = (middle - OCTAVE_COST * torch.log2(lag * (LOWEST / SAMPLE_RATE))).masked_fill(~peak, -1.0)
    best = ranked.topk(CANDIDATES, dim=1).indices
    a, b, c = left.gather(1, best), middle.gather(1, best), right.gather(1, best)
    bend = (a - 2.0 * b + c).clamp_max(-1e-9)
    shift = (0.5 * (a - c) / bend).clamp(-0.5, 0.5)
    height = b - 0.25 * (a - c) * shift
    # Short windows can push a peak above 1 (Boersma, section 3.3): reflect it.
    height = torch.where(height > 1.0, 1.0 / height, height)
    return lag[best] + shift, torch.where(peak.gather(1, best), height, 0.0)


def _best_path(local: Tensor, pitch: Tensor, mask: Tensor) -> Tensor:
    """Viterbi over frames, side by side for all utterances. [B, T, K+1] twice, [B, T] → states [B, T]."""
    jump = JUMP_COST * (pitch[:, :-1, :, None] - pitch[:, 1:, None, :]).abs()
    jump[..., -1, :] = VOICING_COST
    jump[..., -1] = VOICING_COST
    jump[..., -1, -1] = 0.0
    jumps, locals_ = jump.unbind(1), local.unbind(1)
    score = locals_[0]
    scores, origins = [score], []
    for step, gain in zip(jumps, locals_[1:], strict=True):
        best, origin = (score[:, :, None] - step).max(1)
        score = best + gain
        scores.append(score)
        origins.append(origin)
    ends = torch.stack(scores, 1).argmax(2)
    last = torch.zeros_like(mask)
    last[:, :-1] = mask[:, :-1] & ~mask[:, 1:]
    last[:, -1] = mask[:, -1]
    state = torch.zeros(len(local), dtype=torch.long, device=local.device)
    path = []
    for frame in range(local.shape[1] - 1, -1, -1):
        if frame < local.shape[1] - 1:
            state = origins[frame].gather(1, state[:, None])[:, 0]
        state = torch.where(last[:, frame], ends[:, frame], state)
        path.append(state)
    return torch.stack(path[::-1], 1)
