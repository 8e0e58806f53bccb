"""Descriptors against signals whose pitch, perturbation and spectrum are known by construction."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedser.audio.features import pitch, spectrum, voice
from fedser.audio.features.formants import formants
from fedser.audio.features.frames import Group, peak_normalised

RATE = 16_000
CPU = torch.device("cpu")


def _group(*signals: np.ndarray) -> Group:
    return Group.of([peak_normalised(signal) for signal in signals], CPU)


def _complex(hertz: float, seconds: float = 1.0, harmonics: int = 12) -> np.ndarray:
    time = np.arange(int(RATE * seconds)) / RATE
    top = min(harmonics, int(7500 / hertz))
    return sum(np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, top + 1))


def _pulses(hertz: float, jitter: float = 0.0, shimmer: float = 0.0) -> tuple[np.ndarray, float, float]:
    """Two seconds of smooth pulses with random periods and heights, and their true jitter and shimmer."""
    rng = np.random.default_rng(0)
    time = np.arange(2 * RATE) / RATE
    count = int(2 * hertz)
    # Differences of two draws from U(-a, a) have the mean absolute value 2a/3.
    periods = (1 + 1.5 * jitter * rng.uniform(-1, 1, count)) / hertz
    heights = 1 + 1.5 * shimmer * rng.uniform(-1, 1, count)
    signal = np.zeros(len(time))
    for position, height in zip(0.01 + np.cumsum(periods), heights, strict=True):
        signal += height * np.exp(-0.5 * ((time - position) / 2.5e-4) ** 2)
    signal += 1e-4 * rng.standard_normal(len(time))
    truth = [float(np.abs(np.diff(x)).mean() / x.mean()) for x in (periods, heights)]
    return signal, truth[0], truth[1]


def _described(signal: np.ndarray) -> dict[str, np.ndarray]:
    group = _group(signal)
    return {k: v.numpy() for k, v in voice.describe(group, pitch.track(group)).items()}


@pytest.mark.parametrize("hertz", [80.0, 101.3, 147.0, 220.0, 311.1, 440.0, 550.0])
def test_pitch_of_a_harmonic_complex(hertz):
    found = pitch.track(_group(_complex(hertz)))
    inner = slice(5, -5)
    assert bool(found.voiced[inner].all())
    np.testing.assert_allclose(found.frequency[inner].numpy(), hertz, rtol=0.01)


@pytest.mark.parametrize("hertz", [120.0, 200.0])
def test_pitch_of_a_missing_fundamental(hertz):
    signal = _complex(hertz) - np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE + 1)
    found = pitch.track(_group(signal))
    np.testing.assert_allclose(found.frequency[5:-5].numpy(), hertz, rtol=0.01)


def test_pitch_follows_a_glide_in_noise():
    time = np.arange(RATE) / RATE
    f0 = 120 + 100 * time
    phase = 2 * np.pi * np.cumsum(f0) / RATE
    signal = sum(np.sin(k * phase) / k for k in range(1, 10))
    signal = signal + 0.1 * np.random.default_rng(1).standard_normal(RATE)
    found = pitch.track(_group(signal))
    centres = (np.arange(100) * 160 + 80)[8:-8]
    np.testing.assert_allclose(found.frequency.numpy()[8:-8], f0[centres], rtol=0.02)


def test_noise_and_silence_are_unvoiced():
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert float(pitch.track(_group(noise)).voiced.float().mean()) < 0.05
    assert not bool(pitch.track(_group(np.zeros(RATE))).voiced.any())


def test_voiced_and_silent_parts_are_told_apart():
    signal = np.concatenate([np.zeros(8000), _complex(150, 0.5), np.zeros(8000)])
    voiced = pitch.track(_group(signal)).voiced
    assert not bool(voiced[:45].any())
    assert bool(voiced[55:95].all())
    assert not bool(voiced[105:].any())


def _slow_path(local: np.ndarray, octave: np.ndarray) -> float:
    """The best path's score by trying all of them; [T, K+1] twice."""
    frames, states = local.shape

    def cost(a: int, b: int, t: int) -> float:
        if (a == states - 1) != (b == states - 1):
            return pitch.VOICING_COST
        return 0.0 if a == states - 1 else pitch.JUMP_COST * abs(octave[t, a] - octave[t + 1, b])

    paths = np.stack(np.meshgrid(*[range(states)] * frames, indexing="ij"), -1).reshape(-1, frames)
    return max(
        sum(local[t, s] for t, s in enumerate(path)) - sum(cost(path[t], path[t + 1], t) for t in range(frames - 1))
        for path in paths
    )


def test_path_search_against_all_paths():
    rng = np.random.default_rng(3)
    lengths = (4, 2, 1, 3)
    local, octave = rng.random((4, 4, 4)), 2 * rng.random((4, 4, 4))
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    states = pitch._best_path(torch.tensor(local), torch.tensor(octave), mask).numpy()
    for row, length in enumerate(lengths):
        here, there = local[row, :length], octave[row, :length]
        chosen = states[row, :length]
        only = np.full_like(here, -100.0)
        only[np.arange(length), chosen] = here[np.arange(length), chosen]
        assert _slow_path(only, there) == pytest.approx(_slow_path(here, there), abs=1e-9)


@pytest.mark.parametrize("jitter", [0.0, 0.01, 0.02])
def test_jitter_is_the_perturbation_of_periods(jitter):
    signal, truth, _ = _pulses(125, jitter=jitter)
    assert float(_described(signal)["jitter"].mean()) == pytest.approx(truth, abs=0.002)


@pytest.mark.parametrize("shimmer", [0.0, 0.1, 0.3])
def test_shimmer_is_the_perturbation_of_heights(shimmer):
    signal, _, truth = _pulses(125, shimmer=shimmer)
    assert float(_described(signal)["shimmer"].mean()) == pytest.approx(truth, abs=0.01 + 0.15 * truth)


def test_amplitude_modulation_raises_shimmer():
    time = np.arange(RATE) / RATE
    steady = _complex(200)
    modulated = steady * (1 + 0.4 * np.sin(2 * np.pi * 37 * time))
    assert _described(modulated)["shimmer"].mean() > _described(steady)["shimmer"].mean() + 0.05


def test_harmonicity_falls_with_noise():
    rng = np.random.default_rng(0)
    signal, noise = _complex(150), rng.standard_normal(RATE)
    values = [float(_described(signal + level * noise)["hnr"].mean()) for level in (0.01, 0.05, 0.2)]
    assert values[0] > values[1] + 3 > values[2] + 6
    # Power of the harmonics over power of the noise, by construction.
    expected = 10 * np.log10(np.mean(signal**2) / 0.05**2)
    assert values[1] == pytest.approx(expected, abs=3.0)


def test_harmonic_difference_of_a_known_spectrum():
    time = np.arange(RATE) / RATE
    signal = np.sin(2 * np.pi * 200 * time) + 0.25 * np.sin(2 * np.pi * 400 * time)
    found = _described(signal)["h1_h2"][5:-5]
    np.testing.assert_allclose(found, 20 * np.log10(4.0), atol=0.7)


def test_formants_of_a_synthetic_vowel():
    """A pulse train through three resonances of known centre and width."""
    signal = np.zeros(RATE)
    signal[:: RATE // 100] = 1.0
    truth = ((700.0, 80.0), (1220.0, 90.0), (2600.0, 120.0))
    for centre, width in truth:
        radius = np.exp(-np.pi * width / RATE)
        a1, a2 = 2 * radius * np.cos(2 * np.pi * centre / RATE), -(radius**2)
        for n in range(2, RATE):
            signal[n] += a1 * signal[n - 1] + a2 * signal[n - 2]
    group = _group(signal)
    power = torch.cat(list(spectrum.spectra(group)))[10:-10]
    found = formants(power).median(0).values.numpy()
    np.testing.assert_allclose(found, [centre for centre, _ in truth], rtol=0.08)


def _noise(exponent: float) -> np.ndarray:
    """Noise whose power falls with frequency to this exponent."""
    spectrum_ = np.fft.rfft(np.random.default_rng(0).standard_normal(4 * RATE))
    hertz = np.maximum(np.fft.rfftfreq(4 * RATE, 1 / RATE), 20.0)
    return np.fft.irfft(spectrum_ * hertz ** (-exponent / 2))


def test_spectral_balance_of_white_and_pink_noise():
    white = {k: float(v.mean()) for k, v in spectrum.describe(_group(_noise(0.0))).items()}
    pink = {k: float(v.mean()) for k, v in spectrum.describe(_group(_noise(1.0))).items()}
    assert white["slope_500_1500"] == pytest.approx(0.0, abs=0.5)
    # Pink noise falls by 3.01 dB an octave: 4.77 dB from 500 to 1500 Hz, 4.5 dB/kHz by least squares.
    assert pink["slope_500_1500"] == pytest.approx(-4.5, abs=0.7)
    assert pink["slope_0_500"] < white["slope_0_500"] - 5
    # Widths of the two bands decide for white noise: 950 Hz against 4000 Hz.
    assert white["alpha"] == pytest.approx(10 * np.log10(950 / 4000), abs=0.7)
    assert pink["alpha"] > white["alpha"] + 5
    assert pink["hammarberg"] > white["hammarberg"] + 3
    assert pink["centroid"] < white["centroid"]
    assert pink["mfcc1"] > white["mfcc1"]


def test_loudness_is_monotone_and_compressed():
    time = np.arange(RATE) / RATE
    steps = np.repeat([0.05, 0.1, 0.2, 0.4, 0.8], RATE // 5)
    loudness = spectrum.describe(_group(steps * np.sin(2 * np.pi * 1000 * time)))["loudness"].numpy()
    plateaus = loudness.reshape(5, 20)[:, 5:15].mean(1)
    assert np.all(np.diff(plateaus) > 0)
    # Doubling the amplitude quadruples the power: a factor 4 ** 0.3 where the floor plays no part.
    assert plateaus[4] / plateaus[3] == pytest.approx(4**0.3, abs=0.15)


def test_flux_is_zero_for_a_steady_sound_and_peaks_at_a_change():
    time = np.arange(RATE) / RATE
    signal = np.where(time < 0.5, np.sin(2 * np.pi * 300 * time), np.sin(2 * np.pi * 3000 * time))
    flux = spectrum.describe(_group(signal))["flux"].numpy()
    assert flux[10:40].max() < 0.05
    assert 48 <= int(flux[10:-10].argmax()) + 10 <= 52


def test_flux_does_not_look_into_the_neighbour():
    first, second = _noise(0.0)[:8000], _complex(200, 0.5)
    together = spectrum.describe(_group(first, second))["flux"]
    torch.testing.assert_close(together[50:], spectrum.describe(_group(second))["flux"])
    assert float(together[50]) == 0.0
