"""``waveform``: samples of fixed length with zero mean and unit variance, for pretrained encoders."""

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
    """Standardise each utterance as a whole, then cut or zero-pad it around its centre; [B, samples]."""
    return torch.stack([_fitted(_standardised(x), samples(seconds)) for x in waveforms])


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean()
    deviation = centred.square().mean().sqrt()
    return centred / deviation if deviation > LEAST_DEVIATION else torch.zeros_like(x)


def _fitted(x: Tensor, wanted: int) -> Tensor:
    surplus = len(x) - wanted
    if surplus >= 0:
        return x[surplus // 2 : surplus // 2 + wanted]
    return torch.nn.functional.pad(x, (-surplus // 2, -surplus - (-surplus // 2)))
