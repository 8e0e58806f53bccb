from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio.augment import KINDS, augment
from fedser.audio.io import SAMPLE_RATE
from fedser.compute import generator

SECOND = np.arange(SAMPLE_RATE) / SAMPLE_RATE


def tone(hertz: float, amplitude: float = 0.3) -> np.ndarray:
    return (amplitude * np.sin(2 * np.pi * hertz * SECOND)).astype(np.float32)


def level(waveform: np.ndarray) -> float:
    """Mean power in dB, without the ends, where filters settle."""
    return float(10 * np.log10(np.mean(np.square(waveform[2000:-2000], dtype=np.float64)) + 1e-20))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.integers(2, 4000), st.floats(0.0, 1.0), st.integers(0, 9))
def test_length_type_and_finiteness_stay(kind: str, length: int, scale: float, seed: int) -> None:
    draw = np.random.default_rng(seed)
    waveform = (scale * draw.uniform(-1, 1, length)).astype(np.float32)
    before = waveform.copy()
    changed = augment(waveform, kind, generator(seed))
    assert changed.shape == waveform.shape
    assert changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert np.array_equal(waveform, before), "the recording itself is left alone"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_same_generator_gives_the_same_copy_and_the_copy_differs(kind: str) -> None:
    waveform = tone(440)
    first, second = (augment(waveform, kind, generator(3)) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.allclose(first, waveform, atol=1e-3)


def test_noise_has_the_promised_level_and_less_power_in_higher_bands() -> None:
    waveform = tone(440)
    for seed in range(5):
        added = augment(waveform, "noise", generator(seed)) - waveform
        assert 9.9 < level(waveform) - level(added) < 30.1
    power = np.abs(np.fft.rfft(added)) ** 2
    assert power[100:200].mean() > 3 * power[1000:2000].mean()


def test_a_room_rings_on_and_dies_away_exponentially() -> None:
    click = np.zeros(SAMPLE_RATE, dtype=np.float32)
    click[0] = 1.0
    response = augment(click, "room", generator(1)).astype(np.float64)
    assert response[0] == pytest.approx(1.0, abs=1e-5)
    energy = np.array([np.mean(response[s : s + 400] ** 2) for s in range(1, 3201, 400)])
    slopes = np.diff(10 * np.log10(energy))
    assert np.all(slopes < 0)
    assert slopes.std() < 2.0, "a straight line in dB"
    seconds = -60 / (slopes.mean() * SAMPLE_RATE / 400)
    assert 0.18 < seconds < 0.85


@pytest.mark.parametrize("kind", ["telephone", "mulaw", "gsm"])
def test_a_line_passes_speech_and_stops_what_lies_outside(kind: str) -> None:
    passed = level(augment(tone(1000), kind, generator(0))) - level(tone(1000))
    assert abs(passed) < 2.5
    assert level(augment(tone(60), kind, generator(0))) < level(tone(60)) - 15
    spectrum = np.abs(np.fft.rfft(augment(tone(1000) + tone(6000), kind, generator(0))))
    assert spectrum[5900:6100].max() < 0.01 * spectrum[950:1050].max()


def test_codecs_add_distortion_in_the_order_of_their_rates() -> None:
    waveform = tone(700) + tone(1300, 0.2)
    line = augment(waveform, "telephone", generator(0))
    errors = [level(augment(waveform, kind, generator(0)) - line) - level(line) for kind in ("mulaw", "gsm")]
    assert -45 < errors[0] < -25, "8-bit μ-law has a signal-to-noise ratio of about 38 dB"
    assert errors[0] + 5 < errors[1] < -5


def test_gain_scales_or_cuts_at_full_scale() -> None:
    waveform = tone(440)
    gains = set()
    for seed in range(8):
        changed = augment(waveform, "gain", generator(seed))
        assert np.abs(changed).max() <= 1.0
        uncut = np.abs(changed) < 0.999
        slope = changed[uncut] @ waveform[uncut] / (waveform[uncut] @ waveform[uncut])
        assert 0.1 <= slope <= 10.0
        assert np.allclose(changed[uncut], slope * waveform[uncut], atol=1e-4)
        gains.add(round(float(slope), 4))
    assert len(gains) == 8
