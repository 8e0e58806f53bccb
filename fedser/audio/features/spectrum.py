"""Descriptors of the short-time spectrum: loudness, MFCC, slopes, centroid, flux, balance.

Definitions follow F. Eyben et al., "The Geneva Minimalistic Acoustic Parameter Set (GeMAPS)", IEEE Trans.
Affective Computing 7(2), 2016, section 3, where they are given there; the code is independent.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE, Group

WINDOW = 400  # 25 ms
SIZE = 512
BANDS = 26
CEPSTRA = 12
FLOOR = 1e-8  # power; 80 dB below a full-scale sine


def mel_bank(bands: int, size: int, lowest: float, highest: float) -> Tensor:
    """Triangles that are equally wide on the mel scale (2595 log10(1 + f/700)); float32 [size/2+1, bands]."""
    hertz = torch.arange(size // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / size
    edges = torch.linspace(_mel(lowest), _mel(highest), bands + 2, dtype=torch.float64)
    mel = 2595.0 * torch.log10(1.0 + hertz / 700.0)
    rising = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0.0).float()


def _mel(hertz: float) -> float:
    return float(2595.0 * torch.log10(torch.tensor(1.0 + hertz / 700.0, dtype=torch.float64)))


@lru_cache(maxsize=4)
def _tables(device: torch.device) -> dict[str, Tensor]:
    window = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64)
    # Scaled so that a full-scale sine has power 1 in its bin.
    window = window * 2.0 / window.sum()
    hertz = torch.arange(SIZE // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / SIZE
    band = torch.arange(BANDS, dtype=torch.float64)
    order = torch.arange(1, CEPSTRA + 1, dtype=torch.float64)
    cosine = torch.cos(torch.pi / BANDS * (band[:, None] + 0.5) * order) * (2.0 / BANDS) ** 0.5
    lifter = 1.0 + 11.0 * torch.sin(torch.pi * order / 22.0)
    # Equal-loudness weight of the band centres (Hermansky 1990, eq. 4).
    mel = torch.linspace(_mel(20.0), _mel(8000.0), BANDS + 2, dtype=torch.float64)[1:-1]
    w2 = (2 * torch.pi * 700.0 * (10.0 ** (mel / 2595.0) - 1.0)) ** 2
    equal = (w2 + 56.8e6) * w2**2 / ((w2 + 6.3e6) ** 2 * (w2 + 0.38e9))
    tables = {
        "window": window,
        "hertz": hertz,
        "bank": mel_bank(BANDS, SIZE, 20.0, 8000.0).double(),
        "cosine": cosine * lifter,
        "equal": equal / equal.max(),
        "position": band,
    }
    return {name: table.float().to(device) for name, table in tables.items()}


def spectra(group: Group, chosen: Tensor | None = None) -> Iterator[Tensor]:
    """Power of the 25 ms frames, block by block, in bins of 31.25 Hz; a full-scale sine has 1. [≤ BLOCK, 257]."""
    window = _tables(group.signal.device)["window"]
    for block in group.blocks(WINDOW, chosen):
        spectrum = torch.fft.rfft(block * window, SIZE)
        yield spectrum.real.square() + spectrum.imag.square()


def describe(group: Group) -> dict[str, Tensor]:
    """Descriptors of all N frames, by name; each [N]."""
    blocks = [_block(power) for power in spectra(group)]
    auditory = torch.cat([auditory for auditory, _ in blocks])
    values = {name: torch.cat([found[name] for _, found in blocks]) for name in blocks[0][1]}
    values["flux"] = (auditory - group.previous(auditory)).square().sum(1).sqrt()
    return values


def _block(power: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Auditory spectra [n, BANDS] and the descriptors that need one frame only; each [n]."""
    tables = _tables(power.device)
    mel = power @ tables["bank"]
    auditory = (mel * tables["equal"]).clamp_min(FLOOR) ** 0.3
    loudness = auditory.sum(1)
    cepstra = mel.clamp_min(FLOOR).log() @ tables["cosine"]
    found = {
        "loudness": loudness,
        "level": _decibel(power.sum(1)),
        "alpha": _decibel(_band(power, 50, 1000)) - _decibel(_band(power, 1000, 5000)),
        "hammarberg": _decibel(_peak(power, 0, 2000)) - _decibel(_peak(power, 2000, 5000)),
        "slope_0_500": _slope(power, 0, 500),
        "slope_500_1500": _slope(power, 500, 1500),
        "centroid": auditory @ tables["position"] / loudness,
    }
    found |= {f"mfcc{k + 1}": cepstra[:, k] for k in range(CEPSTRA)}
    return auditory, found


def _decibel(power: Tensor) -> Tensor:
    return 10.0 * power.clamp_min(FLOOR).log10()


def _bins(low: float, high: float) -> slice:
    """Bins of the short spectrum from ``low`` up to but without ``high`` hertz."""
    return slice(round(low * SIZE / SAMPLE_RATE), round(high * SIZE / SAMPLE_RATE))


def _band(power: Tensor, low: float, high: float) -> Tensor:
    return power[:, _bins(low, high)].sum(1)


def _peak(power: Tensor, low: float, high: float) -> Tensor:
    return power[:, _bins(low, high)].amax(1)


def _slope(power: Tensor, low: float, high: float) -> Tensor:
    """Least-squares slope of the level over frequency, in decibel per kilohertz."""
    level = _decibel(power[:, _bins(low, high)])
    bins = torch.arange(level.shape[1], device=power.device, dtype=torch.float32)
    centred = (bins - bins.mean()) * (SAMPLE_RATE / SIZE / 1000.0)
    return level @ (centred / centred.square().sum())
