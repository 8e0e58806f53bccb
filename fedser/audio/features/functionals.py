"""``functionals``: prosody, spectrum and voice quality of an utterance in one vector."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.audio.features import pitch, spectrum, statistics, voice
from fedser.audio.features.frames import HOP, SAMPLE_RATE, Group

CONTOUR = ("p20", "p50", "p80", "range", "rise", "rise_sd", "fall", "fall_sd")
ALL = ("loudness", "flux", "centroid", "mfcc1", "mfcc2", "mfcc3", "mfcc4")
SHAPE = (
    "alpha",
    "hammarberg",
    "slope_0_500",
    "slope_500_1500",
    "flux",
    "centroid",
    "mfcc1",
    "mfcc2",
    "mfcc3",
    "mfcc4",
)
VOICED = (
    "semitone", "hnr", "jitter", "shimmer", "h1_h2", "h1_a1", "h1_a2", "h1_a3",
    "f1", "f2", "f3", "f1_width", "f2_width", "f3_width",
)  # fmt: skip
UNVOICED = ("alpha", "hammarberg", "slope_0_500", "slope_500_1500", "flux")
RHYTHM = ("loudness_peaks", "voiced_runs", "voiced_length", "voiced_length_sd", "unvoiced_length",
          "unvoiced_length_sd", "voiced_share", "level")  # fmt: skip


def names() -> list[str]:
    """What each entry of the vector is."""
    found = [f"{name}_{part}" for name in ALL for part in ("mean", "sd")]
    found += [f"voiced_{name}_{part}" for name in (*SHAPE, *VOICED) for part in ("mean", "sd")]
    found += [f"unvoiced_{name}_mean" for name in UNVOICED]
    found += [f"{name}_{part}" for name in ("loudness", "semitone") for part in CONTOUR]
    return found + list(RHYTHM)


def functionals(waveforms: Sequence[Tensor], device: torch.device) -> Tensor:
    """The vectors of a group of utterances (peak-normalised, 16 kHz); float32 [B, D]."""
    group = Group.of(waveforms, device)
    found = pitch.track(group)
    every = spectrum.describe(group)
    source = {name: _scattered(v, found.voiced) for name, v in voice.describe(group, found).items()}
    mask, voiced = group.mask(), group.padded(found.voiced)
    unvoiced = mask & ~voiced

    def table(values: dict[str, Tensor], chosen: Sequence[str], where: Tensor) -> Tensor:
        return statistics.smooth(group.padded(torch.stack([values[name] for name in chosen], 1)), where)

    whole = table(every, ALL, mask)
    loud = whole[..., :1]
    speech = torch.cat([table(every, SHAPE, voiced), table(source, VOICED, voiced)], 2)
    tone = speech[..., len(SHAPE) : len(SHAPE) + 1]
    parts = [
        _interleaved(whole, mask),
        _interleaved(speech, voiced),
        statistics.mean(table(every, UNVOICED, unvoiced), unvoiced),
        _contour(loud, mask),
        _contour(tone, voiced),
        _rhythm(group, loud[..., 0], voiced, unvoiced, every["level"]),
    ]
    return torch.cat(parts, 1)


def _scattered(values: Tensor, voiced: Tensor) -> Tensor:
    """Values of the voiced frames at their places among all frames; [V] → [N]."""
    return torch.zeros(len(voiced), device=values.device).masked_scatter(voiced, values)


def _interleaved(values: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([statistics.mean(values, mask), statistics.spread(values, mask)], 2).flatten(1)


def _contour(values: Tensor, mask: Tensor) -> Tensor:
    level = statistics.quantiles(values, mask, (0.2, 0.5, 0.8))[:, 0]
    reach = (level[:, 2] - level[:, 0])[:, None]
    slopes = statistics.slopes(values, mask)[:, 0] * (SAMPLE_RATE / HOP)
    return torch.cat([level, reach, slopes], 1)


def _rhythm(group: Group, loudness: Tensor, voiced: Tensor, unvoiced: Tensor, level: Tensor) -> Tensor:
    seconds = group.seconds[:, None]
    speaking, pausing = statistics.runs(voiced), statistics.runs(unvoiced)
    share = voiced.sum(1, keepdim=True) / group.mask().sum(1, keepdim=True)
    energy = statistics.mean(group.padded(10.0 ** (level / 10.0))[..., None], group.mask())
    frame = HOP / SAMPLE_RATE
    return torch.cat(
        [
            statistics.peaks(loudness, group.mask()) / seconds,
            speaking[:, :1] / seconds,
            speaking[:, 1:] * frame,
            pausing[:, 1:] * frame,
            share,
            10.0 * energy.clamp_min(spectrum.FLOOR).log10(),
        ],
        1,
    )
