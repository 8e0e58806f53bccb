"""``functionals``: prosody, spectrum and voice quality of an utterance in one vector.

Descriptors of single frames (:mod:`spectrum`, :mod:`pitch`, :mod:`voice`) are smoothed over three frames and
summarised over four sets of frames: all, active (at least a quarter as loud as the loud ones, so that silence
around the speech hardly matters), voiced, and unvoiced. Which statistics stay was decided by how well they carry
over between corpora of four languages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedser.audio.features import pitch, spectrum, statistics, voice
from fedser.audio.features.frames import HOP, SAMPLE_RATE, Group

TIMBRE = ("loudness", "flux", "centroid", "mfcc1", "mfcc2", "mfcc3", "mfcc4")
BALANCE = ("alpha", "hammarberg", "slope_0_500", "slope_500_1500")
VOICED = (*BALANCE, *TIMBRE[1:], "semitone", "hnr", "jitter", "shimmer", "h1_h2", "h1_a1", "h1_a2", "h1_a3")
FORMANTS = ("f1", "f2", "f3")
UNVOICED = (*BALANCE, "flux")
CONTOURS = ("loudness", "semitone")
CONTOUR = ("p20", "p50", "p80", "range", "rise", "rise_sd", "fall", "fall_sd")
MELODY = ("p5", "p95", "span", "cv", "step", "step_p50", "step_p80")
RANKED = ("hnr", "alpha", "hammarberg", "h1_a3", "mfcc1", "flux")
RANKS = (20, 50, 80)
CLARITY = (60, 75, 85, 95)  # percent of periodicity
HARMONIC = (5, 10, 15)  # decibel of harmonics over noise
TILT = ("h1_a1", "h1_a2", "h1_a3")
RHYTHM = (
    "loudness_peaks", "voiced_runs", "voiced_length", "voiced_length_sd",
    "unvoiced_length", "unvoiced_length_sd", "voiced_share", "level",
)  # fmt: skip
ACTIVE = 0.25  # of the 95th percentile of loudness
UNVOICED_TILT = 60.0  # decibel: stands for H1-A where there are no harmonics


def names() -> list[str]:
    """What each entry of the vector is."""
    found = [f"{where}_{name}_{part}" for where in ("all", "active") for name in TIMBRE for part in ("mean", "sd")]
    found += [f"voiced_{name}_{part}" for name in VOICED for part in ("mean", "sd")]
    found += [f"voiced_{name}_sd" for name in FORMANTS]
    found += [f"unvoiced_{name}_mean" for name in UNVOICED]
    found += [f"{name}_{part}" for name in CONTOURS for part in CONTOUR]
    found += [f"semitone_{part}" for part in MELODY]
    found += [f"voiced_{name}_p{rank}" for name in RANKED for rank in RANKS]
    found += [f"{where}_periodicity" for where in ("all", "active", "voiced")]
    found += [f"active_periodicity_over_{level}" for level in CLARITY]
    found += [f"active_hnr_over_{level}" for level in HARMONIC]
    found += [f"active_{name}" for name in TILT]
    return found + list(RHYTHM)


@dataclass(frozen=True)
class Table:
    """Frame values of a group by name, and the sets of frames; all padded to [B, T]."""

    values: dict[str, Tensor]
    everywhere: Tensor
    active: Tensor
    voiced: Tensor

    @classmethod
    def of(cls, group: Group) -> Table:
        """Analyse a group of utterances."""
        found = pitch.track(group)
        values = spectrum.describe(group) | {"strength": found.strength}
        for name, voiced_only in voice.describe(group, found).items():
            values[name] = torch.zeros_like(found.strength).masked_scatter(found.voiced, voiced_only)
        padded = group.padded(torch.stack(list(values.values()), 1))
        table = dict(zip(values, padded.unbind(2), strict=True))
        everywhere = group.mask()
        loudness = statistics.smooth(table["loudness"][..., None], everywhere)
        least = ACTIVE * statistics.quantiles(loudness, everywhere, (0.95,))[:, 0]
        return cls(table, everywhere, everywhere & (loudness[..., 0] > least), group.padded(found.voiced))

    @property
    def unvoiced(self) -> Tensor:
        """Frames without voicing, silence included."""
        return self.everywhere & ~self.voiced

    def smooth(self, chosen: Sequence[str], where: Tensor) -> Tensor:
        """Descriptors smoothed inside a set of frames; [B, T, D]."""
        return statistics.smooth(torch.stack([self.values[name] for name in chosen], 2), where)


def functionals(waveforms: Sequence[Tensor], device: torch.device) -> Tensor:
    """The vectors of a group of utterances (peak-normalised, 16 kHz); float32 [B, len(names())]."""
    group = Group.of(waveforms, device)
    table = Table.of(group)
    loudness = table.smooth(("loudness",), table.everywhere)
    tone = table.smooth(("semitone",), table.voiced)
    parts = [
        _moments(table.smooth(TIMBRE, table.everywhere), table.everywhere),
        _moments(table.smooth(TIMBRE, table.active), table.active),
        _moments(table.smooth(VOICED, table.voiced), table.voiced),
        statistics.spread(table.smooth(FORMANTS, table.voiced), table.voiced),
        statistics.mean(table.smooth(UNVOICED, table.unvoiced), table.unvoiced),
        _contour(loudness, table.everywhere),
        _contour(tone, table.voiced),
        _melody(tone, table.voiced),
        statistics.quantiles(table.smooth(RANKED, table.voiced), table.voiced, [r / 100 for r in RANKS]).flatten(1),
        _clarity(table),
        _rhythm(group.seconds[:, None], table, loudness[..., 0]),
    ]
    return torch.cat(parts, 1)


def _moments(values: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation of each descriptor, side by side; [B, T, D] → [B, 2 D]."""
    return torch.stack([statistics.mean(values, mask), statistics.spread(values, mask)], 2).flatten(1)


def _contour(values: Tensor, mask: Tensor) -> Tensor:
    """Percentiles, range and slopes per second of one contour [B, T, 1]; [B, len(CONTOUR)]."""
    level = statistics.quantiles(values, mask, (0.2, 0.5, 0.8))[:, 0]
    reach = (level[:, 2] - level[:, 0])[:, None]
    slopes = statistics.slopes(values, mask)[:, 0] * (SAMPLE_RATE / HOP)
    return torch.cat([level, reach, slopes], 1)


def _melody(tone: Tensor, voiced: Tensor) -> Tensor:
    """Extremes, relative variation and step sizes of F0 in semitones [B, T, 1]; [B, len(MELODY)]."""
    ends = statistics.quantiles(tone, voiced, (0.05, 0.95))[:, 0]
    variation = statistics.spread(tone, voiced) / statistics.mean(tone, voiced).clamp_min(1.0)
    steps, both = tone.diff(dim=1).abs(), voiced[:, 1:] & voiced[:, :-1]
    typical = statistics.quantiles(steps, both, (0.5, 0.8))[:, 0]
    return torch.cat([ends, ends[:, 1:] - ends[:, :1], variation, statistics.mean(steps, both), typical], 1)


def _clarity(table: Table) -> Tensor:
    """How much of the utterance, and of its active part, is clearly voiced."""
    strength = table.values["strength"][..., None]
    means = [statistics.mean(strength, mask) for mask in (table.everywhere, table.active, table.voiced)]
    shares = [_share(strength[..., 0] > level / 100, table.active) for level in CLARITY]
    shares += [_share(table.voiced & (table.values["hnr"] > level), table.active) for level in HARMONIC]
    tilt = torch.stack([table.values[name] for name in TILT], 2)
    tilt = torch.where(table.voiced[..., None], tilt, UNVOICED_TILT)
    return torch.cat([*means, *shares, statistics.mean(tilt, table.active)], 1)


def _share(condition: Tensor, mask: Tensor) -> Tensor:
    return statistics.mean(condition[..., None].to(torch.float32), mask)


def _rhythm(seconds: Tensor, table: Table, loudness: Tensor) -> Tensor:
    """Peaks and voiced stretches per second, lengths of stretches in seconds, mean level in decibel."""
    frame = HOP / SAMPLE_RATE
    speaking, pausing = statistics.runs(table.voiced), statistics.runs(table.unvoiced)
    power = statistics.mean(10.0 ** (table.values["level"][..., None] / 10.0), table.everywhere)
    return torch.cat(
        [
            statistics.peaks(loudness, table.everywhere) / seconds,
            speaking[:, :1] / seconds,
            speaking[:, 1:] * frame,
            pausing[:, 1:] * frame,
            _share(table.voiced, table.everywhere),
            10.0 * power.clamp_min(spectrum.FLOOR).log10(),
        ],
        1,
    )
