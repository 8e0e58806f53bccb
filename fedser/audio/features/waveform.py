"""``waveform``: samples of fixed length with zero mean and unit variance, for pretrained encoders that are trained.

A shorter utterance is repeated until the length is full, not padded: noise and mixtures, which training puts on its
inputs, would hide where silence begins, and no later layer could leave it out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE

LEAST_DEVIATION = 1e-5  # below it a signal is silence and stays zero


def samples(seconds: float) -> int:
    """Samples of an utterance of this length."""
    return max(1, round(seconds * SAMPLE_RATE))


def waveform(waveforms: Sequence[Tensor], seconds: float) -> Tensor:
    """Standardise each utterance as a whole, then cut it around its centre or repeat it; [B, 1, samples]."""
    return torch.stack([_fitted(standardised(x), samples(seconds))[None] for x in waveforms])


def standardised(x: Tensor) -> Tensor:
    """An utterance [T] with zero mean and unit variance, as the large pretrained encoders were trained."""
    centred = x - x.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if deviation > LEAST_DEVIATION else torch.zeros_like(x)


def cut(x: Tensor, longest: int) -> Tensor:
    """At most ``longest`` samples around an utterance's centre."""
    start = max(0, len(x) - longest) // 2
    return x[start : start + longest]


def _fitted(x: Tensor, wanted: int) -> Tensor:
    return cut(x, wanted) if len(x) >= wanted else x.repeat(-(-wanted // len(x)))[:wanted]
