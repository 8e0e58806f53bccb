"""Copies of recordings as other rooms, lines and microphones would have delivered them.

Every function takes and returns a float32 waveform [T] at 16 kHz and draws from the generator alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
import torchaudio.functional as audio
from torch import Generator, Tensor

from fedser.audio.io import SAMPLE_RATE

TELEPHONE_RATE = 8000
NOISE_DB = (10.0, 30.0)  # signal-to-noise ratio
REVERBERATION_SECONDS = (0.2, 0.8)  # time to fall by 60 dB: a small office to a lecture room
DIRECT_TO_REVERBERANT_DB = (0.0, 10.0)
GAIN_DB = (-20.0, 20.0)


def augment(waveform: np.ndarray, kind: str, generator: Generator) -> np.ndarray:
    """One changed copy of a recording.

    Args:
        waveform: float32 [T], 16 kHz.
        kind: a key of :data:`KINDS`.
        generator: where the random choices come from.

    Returns:
        float32 [T].
    """
    changed = KINDS[kind](torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32)), generator)
    return np.asarray(changed.numpy(), dtype=np.float32)


def noise(waveform: Tensor, generator: Generator) -> Tensor:
    """Add pink noise (power ∝ 1/f, as in most rooms) at a signal-to-noise ratio of 10 to 30 dB."""
    spectrum = torch.fft.rfft(torch.randn(len(waveform), generator=generator))
    spectrum = spectrum / torch.arange(1, len(spectrum) + 1).sqrt()
    pink = torch.fft.irfft(spectrum, n=len(waveform))
    ratio = _uniform(NOISE_DB, generator)
    scale = (_power(waveform) / _power(pink).clamp(min=1e-20)).sqrt() * 10 ** (-ratio / 20)
    noisy: Tensor = waveform + scale * pink
    return noisy


def room(waveform: Tensor, generator: Generator) -> Tensor:
    """Convolve with a synthetic impulse response: the direct path and an exponentially decaying noise tail.

    The model of Polack (1988): Gaussian noise whose envelope falls by 60 dB in the reverberation time, 0.2 to
    0.8 s; the direct path carries 0 to 10 dB more energy than the tail.
    """
    seconds = _uniform(REVERBERATION_SECONDS, generator)
    times = torch.arange(1, int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tail = torch.randn(len(times), generator=generator) * torch.exp(-math.log(1000.0) * times / seconds)
    tail = tail / tail.norm() * 10 ** (-_uniform(DIRECT_TO_REVERBERANT_DB, generator) / 20)
    response = torch.cat([torch.ones(1), tail])
    echoing: Tensor = audio.fftconvolve(waveform, response)[: len(waveform)]
    return echoing


def telephone(waveform: Tensor, generator: Generator) -> Tensor:
    """The band of a telephone line, 300 to 3400 Hz: second-order slopes, then 8 kHz sampling and back."""
    narrow = audio.resample(waveform, SAMPLE_RATE, TELEPHONE_RATE)
    narrow = audio.highpass_biquad(narrow, TELEPHONE_RATE, 300.0)
    narrow = audio.lowpass_biquad(narrow, TELEPHONE_RATE, 3400.0)
    return _fit(audio.resample(narrow, TELEPHONE_RATE, SAMPLE_RATE), len(waveform))


def mulaw(waveform: Tensor, generator: Generator) -> Tensor:
    """A telephone line with 8-bit μ-law companding (in the manner of ITU-T G.711)."""
    line, peak = _full_scale(telephone(waveform, generator))
    narrow = audio.resample(line, SAMPLE_RATE, TELEPHONE_RATE).clamp(-1.0, 1.0)
    coded = audio.mu_law_decoding(audio.mu_law_encoding(narrow, 256), 256)
    return peak * _fit(audio.resample(coded, TELEPHONE_RATE, SAMPLE_RATE), len(waveform))


def gsm(waveform: Tensor, generator: Generator) -> Tensor:
    """GSM-like coding of a telephone line: an approximation of GSM 06.10's loss, not the codec.

    The codec's audible losses are imitated: pre-emphasis, a residual that is coarsely quantised in each
    block of 20 ms relative to the block's own peak, de-emphasis.
    """
    line = telephone(waveform, generator)
    narrow = audio.preemphasis(audio.resample(line, SAMPLE_RATE, TELEPHONE_RATE), 0.86)
    block = TELEPHONE_RATE // 50
    padded = torch.nn.functional.pad(narrow, (0, -len(narrow) % block)).view(-1, block)
    peaks = padded.abs().amax(dim=1, keepdim=True).clamp(min=1e-9)
    companded = audio.mu_law_decoding(audio.mu_law_encoding(padded / peaks, 16), 16) * peaks
    decoded = audio.deemphasis(companded.flatten()[: len(narrow)], 0.86)
    return _fit(audio.resample(decoded, TELEPHONE_RATE, SAMPLE_RATE), len(waveform))


def gain(waveform: Tensor, generator: Generator) -> Tensor:
    """Another recording level, −20 to +20 dB, cut off at full scale as a converter does."""
    return (waveform * 10 ** (_uniform(GAIN_DB, generator) / 20)).clamp(-1.0, 1.0)


KINDS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = MappingProxyType(
    {"noise": noise, "room": room, "telephone": telephone, "mulaw": mulaw, "gsm": gsm, "gain": gain}
)
"""All augmentations by name."""


def _uniform(bounds: tuple[float, float], generator: Generator) -> float:
    low, high = bounds
    return low + (high - low) * float(torch.rand((), generator=generator))


def _power(waveform: Tensor) -> Tensor:
    return waveform.square().mean()


def _full_scale(waveform: Tensor) -> tuple[Tensor, Tensor]:
    """The waveform at a peak of 1, and its own peak."""
    peak = waveform.abs().max().clamp(min=1e-9)
    return waveform / peak, peak


def _fit(waveform: Tensor, length: int) -> Tensor:
    """Cut, or pad with zeros, to a length."""
    return torch.nn.functional.pad(waveform[:length], (0, max(0, length - len(waveform))))
