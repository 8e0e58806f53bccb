"""The vector of one utterance, entry by entry, against plain numpy over its frames; and known signals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedser.audio.features import FeatureSettings, extract, names
from fedser.audio.features.frames import Group, peak_normalised
from fedser.audio.features.functionals import UNVOICED_TILT, Table

RATE = 16_000


def _utterance(seed: int, seconds: float) -> np.ndarray:
    """Syllables of a gliding voice between noise and silence."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(RATE * seconds)) / RATE
    f0 = 140 + 50 * rng.random() + 40 * np.sin(2 * np.pi * 0.6 * time)
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 15)) * np.clip(np.sin(2 * np.pi * 2 * time), 0, None)
    signal = 0.3 * voice + 0.02 * rng.standard_normal(len(time)) * (np.sin(2 * np.pi * 1.1 * time) > 0)
    return np.concatenate([np.zeros(3000), signal]).astype(np.float32)


class Slow:
    """One utterance's frames as numpy arrays, and each entry of the vector worked out by its name."""

    def __init__(self, waveform: np.ndarray) -> None:
        self.seconds = len(waveform) / RATE
        table = Table.of(Group.of([peak_normalised(waveform)], torch.device("cpu")))
        self.values = {k: v[0].double().numpy() for k, v in table.values.items()}
        self.voiced = table.voiced[0].numpy()
        self.everywhere = np.ones(len(self.voiced), dtype=bool)
        loud = self.smooth("loudness", self.everywhere)
        self.active = loud > 0.25 * np.quantile(loud, 0.95)
        assert np.array_equal(self.active, table.active[0].numpy())

    def smooth(self, name: str, where: np.ndarray) -> np.ndarray:
        out = np.zeros(len(where))
        for t in np.flatnonzero(where):
            near = [k for k in (t - 1, t, t + 1) if 0 <= k < len(where) and where[k]]
            out[t] = np.mean(self.values[name][near])
        return out

    def entry(self, name: str) -> float:
        if name in ("loudness_peaks", "level", "voiced_share") or name.startswith(("voiced_runs", "voiced_length")):
            return self.rhythm(name)
        if name.startswith("unvoiced_length"):
            return self.rhythm(name)
        if name.endswith("_periodicity"):
            return float(np.mean(self.values["strength"][self.frames(name.split("_")[0])]))
        if name.startswith("active_periodicity_over_"):
            level = int(name.rsplit("_", 1)[1]) / 100
            return float(np.mean(self.values["strength"][self.active] > level))
        if name.startswith("active_hnr_over_"):
            above = self.values["hnr"] > int(name.rsplit("_", 1)[1])
            return float(np.mean((above & self.voiced)[self.active]))
        if name.startswith("active_h1_"):
            tilt = np.where(self.voiced, self.values[name.removeprefix("active_")], UNVOICED_TILT)
            return float(np.mean(tilt[self.active]))
        where, _, rest = name.partition("_")
        if where in ("loudness", "semitone"):
            mask = self.everywhere if where == "loudness" else self.voiced
            return self.contour(self.smooth(where, mask), mask, rest)
        descriptor, _, statistic = rest.rpartition("_")
        mask = self.frames(where)
        values = self.smooth(descriptor, mask)[mask]
        if statistic.startswith("p"):
            return float(np.quantile(values, int(statistic[1:]) / 100))
        return float({"mean": np.mean, "sd": np.std}[statistic](values))

    def frames(self, where: str) -> np.ndarray:
        masks = {"all": self.everywhere, "active": self.active, "voiced": self.voiced, "unvoiced": ~self.voiced}
        return masks[where]

    def contour(self, values: np.ndarray, mask: np.ndarray, statistic: str) -> float:
        chosen = values[mask]
        q = {p: np.quantile(chosen, p / 100) for p in (5, 20, 50, 80, 95)}
        steps = np.array([values[t] - values[t - 1] for t in range(1, len(values)) if mask[t] and mask[t - 1]])
        sized = {"rise": 100 * steps[steps > 0], "fall": -100 * steps[steps < 0]}
        match statistic.split("_"):
            case ["range"]:
                return float(q[80] - q[20])
            case ["span"]:
                return float(q[95] - q[5])
            case ["cv"]:
                return float(np.std(chosen) / np.mean(chosen))
            case ["step"]:
                return float(np.mean(np.abs(steps)))
            case ["step", rank]:
                return float(np.quantile(np.abs(steps), int(rank[1:]) / 100))
            case ["rise" | "fall" as way]:
                return float(np.mean(sized[way]))
            case ["rise" | "fall" as way, "sd"]:
                return float(np.std(sized[way]))
            case [rank]:
                return float(q[int(rank[1:])])
        raise AssertionError(statistic)

    def rhythm(self, name: str) -> float:
        if name == "level":
            return float(10 * np.log10(np.mean(10 ** (self.values["level"] / 10))))
        if name == "voiced_share":
            return float(np.mean(self.voiced))
        if name == "loudness_peaks":
            loud = np.pad(self.smooth("loudness", self.everywhere), 1, constant_values=-np.inf)
            centre = loud[1:-1].mean()
            middle = loud[1:-1]
            return float(np.sum((middle > loud[:-2]) & (middle >= loud[2:]) & (middle > centre)) / self.seconds)
        mask = self.frames(name.split("_")[0])
        edges = np.diff(np.concatenate([[0], mask.astype(int), [0]]))
        lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        if name == "voiced_runs":
            return float(len(lengths) / self.seconds)
        return float(np.std(lengths) if name.endswith("_sd") else np.mean(lengths)) * 0.01


def test_every_entry_against_a_slow_count_by_its_name():
    waveforms = [_utterance(seed, seconds) for seed, seconds in ((0, 1.0), (1, 2.3), (2, 3.1))]
    found = extract(waveforms, FeatureSettings()).double().numpy()
    for row, waveform in zip(found, waveforms, strict=True):
        slow = Slow(waveform)
        for name, value in zip(names(FeatureSettings()), row, strict=True):
            assert value == pytest.approx(slow.entry(name), rel=1e-3, abs=1e-3), name


def _named(waveform: np.ndarray) -> dict[str, float]:
    return dict(zip(names(FeatureSettings()), extract([waveform], FeatureSettings())[0].tolist(), strict=True))


def _tone(f0: np.ndarray) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 10)).astype(np.float32)


def test_rhythm_of_four_bursts_in_two_seconds():
    time = np.arange(2 * RATE) / RATE
    burst = (time % 0.5) < 0.25
    found = _named(_tone(np.full(2 * RATE, 220.0)) * burst)
    assert found["voiced_runs"] == pytest.approx(2.0)
    assert found["voiced_length"] == pytest.approx(0.25, abs=0.03)
    assert found["unvoiced_length"] == pytest.approx(0.25, abs=0.03)
    assert found["voiced_share"] == pytest.approx(0.5, abs=0.06)
    assert found["semitone_p50"] == pytest.approx(36.0, abs=0.1)
    assert found["semitone_span"] < 0.3


def test_slope_of_a_rising_voice():
    """Twelve semitones in two seconds."""
    found = _named(_tone(150 * 2 ** (np.arange(2 * RATE) / (2 * RATE))))
    assert found["semitone_rise"] == pytest.approx(6.0, abs=0.4)
    assert found["semitone_range"] == pytest.approx(0.6 * 12, abs=0.4)
    assert found["active_periodicity"] > 0.9


def test_silence_around_the_speech_leaves_the_active_part_alone():
    voice = _utterance(5, 2.0)[3000:]
    padded = np.concatenate([np.zeros(RATE, np.float32), voice, np.zeros(RATE, np.float32)])
    bare, framed = _named(voice), _named(padded)
    for name in ("active_mfcc1_mean", "active_periodicity", "voiced_semitone_mean", "voiced_hnr_mean"):
        assert framed[name] == pytest.approx(bare[name], rel=0.05, abs=0.05), name
    assert framed["voiced_share"] < bare["voiced_share"]
