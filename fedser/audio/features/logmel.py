"""``logmel``: natural logarithm of mel-band power, 25 ms windows every 10 ms, for convolutional encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.audio.features import spectrum
from fedser.audio.features.frames import HOP, SAMPLE_RATE, Group
from fedser.audio.features.spectrum import FLOOR, SIZE, mel_bank


def frames(seconds: float) -> int:
    """Frames of a log-mel spectrogram of this length."""
    return max(1, round(seconds * SAMPLE_RATE / HOP))


def logmel(waveforms: Sequence[Tensor], mels: int, seconds: float, device: torch.device) -> Tensor:
    """Log-mel spectrograms of a group of peak-normalised utterances; float32 [B, mels, frames(seconds)].

    A band's power is at least 1e-8 (a full-scale sine has power 1); the same floor pads short utterances.
    """
    group = Group.of(waveforms, device)
    bank = mel_bank(mels, SIZE, 20.0, SAMPLE_RATE / 2).to(device)
    level = torch.cat([(power @ bank).clamp_min(FLOOR).log() for power in spectrum.spectra(group)])
    wanted = frames(seconds)
    floor = float(torch.tensor(FLOOR).log())
    rows = [_fitted(row.T, wanted, floor) for row in torch.split(level, list(group.counts))]
    return torch.stack(rows)


def _fitted(row: Tensor, wanted: int, fill: float) -> Tensor:
    """Cut or pad the last dimension around its centre."""
    surplus = row.shape[-1] - wanted
    if surplus >= 0:
        return row[..., surplus // 2 : surplus // 2 + wanted]
    return torch.nn.functional.pad(row, (-surplus // 2, -surplus - (-surplus // 2)), value=fill)
