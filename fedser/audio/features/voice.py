"""Descriptors of the voice source in voiced frames: perturbation, harmonicity, harmonic differences, formants.

Jitter and shimmer follow their usual definitions (mean absolute difference of consecutive periods, or of
consecutive peak amplitudes, over their mean), with the pulses found as the largest sample near each expected
period around the frame's centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedser.audio.features import pitch, spectrum
from fedser.audio.features.formants import formants
from fedser.audio.features.frames import BLOCK, SAMPLE_RATE, Group

NAMES = (
    "semitone", "hnr", "jitter", "shimmer", "h1_h2",
    "f1", "f2", "f3", "h1_a1", "h1_a2", "h1_a3",
)  # fmt: skip
PULSES = 5  # per frame
SEARCH = 0.2  # of a period, to both sides of where a pulse is expected
POINTS = 33  # samples looked at in a search, spread evenly where the period is long
FLOOR = 1e-9


def describe(group: Group, found: pitch.Pitch) -> dict[str, Tensor]:
    """Descriptors of the V voiced frames, by name; each [V]."""
    voiced = found.voiced
    f0 = found.frequency[voiced]
    values = {name: [f0.new_empty(0)] for name in NAMES}
    blocks = zip(
        torch.split(f0, BLOCK),
        torch.split(group.centres[voiced], BLOCK),
        pitch.spectra(group, voiced),
        spectrum.spectra(group, voiced),
        strict=False,  # without voiced frames there is one empty piece but no block
    )
    for f, centres, long, short in blocks:
        for name, part in _block(group.signal, centres, f, long, short).items():
            values[name].append(part)
    return {name: torch.cat(parts) for name, parts in values.items()}


def _block(signal: Tensor, centres: Tensor, f0: Tensor, long: Tensor, short: Tensor) -> dict[str, Tensor]:
    jitter, shimmer = _perturbation(signal, centres, SAMPLE_RATE / f0)
    level = 10.0 * long.clamp_min(FLOOR).log10()
    first = _harmonic(level, f0, f0)
    ratio = pitch.periodicity(long, f0).clamp(1e-4, 0.9999)
    values = {
        "semitone": 12.0 * (f0 / 27.5).log2(),
        "hnr": 10.0 * (ratio / (1.0 - ratio)).log10(),
        "jitter": jitter,
        "shimmer": shimmer,
        "h1_h2": first - _harmonic(level, f0, 2.0 * f0),
    }
    for number, formant in enumerate(formants(short).unbind(1), start=1):
        values[f"f{number}"] = formant
        values[f"h1_a{number}"] = first - _harmonic(level, f0, formant)
    return values


def _harmonic(level: Tensor, f0: Tensor, frequency: Tensor) -> Tensor:
    """Level of the harmonic of ``f0`` nearest to ``frequency``. [V, F], [V], [V] → [V]."""
    width = SAMPLE_RATE / pitch.SIZE
    centre = (frequency / f0).round().clamp_min(1.0) * f0 / width
    bins = centre.round().long()[:, None] + torch.arange(-2, 3, device=level.device)
    return level.gather(1, bins.clamp(0, level.shape[1] - 1)).amax(1)


def _perturbation(signal: Tensor, centres: Tensor, period: Tensor) -> tuple[Tensor, Tensor]:
    """Jitter and shimmer of each frame, as ratios; [V] twice.

    Args:
        signal: all samples; [S].
        centres: the frames' centres; [V].
        period: in samples; [V].
    """
    # The strongest pulse of the middle period is the anchor; its sign serves for all the others.
    around = torch.linspace(-0.5, 0.5, 2 * POINTS - 1, device=signal.device)
    index = centres[:, None] + (around * period[:, None]).round().long()
    values = signal[index]
    anchor = values.abs().argmax(1, keepdim=True)
    sign = values.gather(1, anchor).sign()
    start = index.gather(1, anchor)
    order = torch.arange(PULSES, device=signal.device) - PULSES // 2
    expected = start + (order * period[:, None]).round().long()
    spread = torch.linspace(-SEARCH, SEARCH, POINTS, device=signal.device) * period[:, None]
    place = (expected[:, :, None] + spread.round().long()[:, None]).clamp(1, len(signal) - 2)
    near = signal[place] * sign[:, :, None]
    best = place.gather(2, near.argmax(2, keepdim=True))
    # The points may be up to four samples apart: climb to the sample that is highest nearby.
    place = (best + torch.arange(-2, 3, device=signal.device)).clamp(1, len(signal) - 2)
    near = signal[place] * sign[:, :, None]
    best = place.gather(2, near.argmax(2, keepdim=True))[..., 0]
    left, middle, right = (signal[best + k] * sign for k in (-1, 0, 1))
    bend = (left - 2.0 * middle + right).clamp_max(-FLOOR)
    shift = (0.5 * (left - right) / bend).clamp(-0.5, 0.5)
    height = (middle - 0.25 * (left - right) * shift).clamp_min(0.0)
    # Positions in float32 lose their fraction in long signals, so whole and fractional parts differ apart.
    length = best.diff(dim=1) + shift.diff(dim=1)
    jitter = length.diff(dim=1).abs().mean(1) / length.mean(1).clamp_min(1.0)
    shimmer = height.diff(dim=1).abs().mean(1) / height.mean(1).clamp_min(FLOOR)
    return jitter.clamp_max(0.5), shimmer.clamp_max(2.0)
