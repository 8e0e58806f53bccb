"""A site whose recordings hold no speech: whatever is adapted to them, the source model should stay.

Synthetic and seeded: coloured noise, mains hum, clicks, sweeps and beeps, one to three seconds each.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor

from fedser.audio import features as extraction
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.io import SAMPLE_RATE
from fedser.audio.utterance import Utterance
from fedser.compute import generator

RECORDINGS = 48
KINDS = ("white", "pink", "brown", "hum", "clicks", "sweep", "beeps")


def noise_site(features: FeatureSettings, seed: int) -> SpeechData:
    """A site of 48 recordings without speech, speakers or labels."""
    rows = []
    for number in range(RECORDINGS):
        source = generator("nonspeech", seed, number)
        rows.append(noise(KINDS[number % len(KINDS)], source))
    utterances = tuple(Utterance(Path(f"{KINDS[n % len(KINDS)]}-{n}.wav")) for n in range(RECORDINGS))
    return SpeechData("nonspeech", utterances, extraction.extract(rows, features), features)


def noise(kind: str, source: Generator) -> np.ndarray:
    """One recording, float32 [T] at 16 kHz, with faint background noise.

    Args:
        kind: one of :data:`KINDS`.
        source: of everything random.
    """
    samples = int(SAMPLE_RATE * _between(1.0, 3.0, source))
    time = torch.arange(samples) / SAMPLE_RATE
    if kind in ("white", "pink", "brown"):
        sound = _coloured(samples, {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind], source)
    elif kind == "hum":
        sound = sum((torch.sin(2 * math.pi * 50 * k * time) / k for k in (1, 2, 3, 5)), torch.zeros(samples))
    elif kind == "clicks":
        sound = (torch.rand(samples, generator=source) < _between(3, 30, source) / SAMPLE_RATE).float()
    elif kind == "sweep":
        low, high = _between(100, 500, source), _between(1000, 4000, source)
        sound = torch.sin(2 * math.pi * (low * time + (high - low) * time.square() / (2 * float(time[-1]))))
    else:
        pitch, rate = _between(400, 2000, source), _between(1, 5, source)
        sound = torch.sin(2 * math.pi * pitch * time) * (torch.sin(2 * math.pi * rate * time) > 0)
    sound = sound / sound.abs().max().clamp(min=1e-6)
    faint = 0.003 * torch.randn(samples, generator=source)
    return np.asarray((0.5 * sound + faint).numpy(), dtype=np.float32)


def _coloured(samples: int, slope: float, source: Generator) -> Tensor:
    """Noise whose amplitude falls with frequency as f^−slope."""
    spectrum = torch.fft.rfft(torch.randn(samples, generator=source))
    shaped: Tensor = torch.fft.irfft(spectrum / torch.arange(1, len(spectrum) + 1) ** slope, n=samples)
    return shaped


def _between(low: float, high: float, source: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=source))
