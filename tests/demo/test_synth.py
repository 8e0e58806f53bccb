"""The synthesiser: exact length, repeatable, and physically what it says."""

from __future__ import annotations

import numpy as np
import pytest

from fedser.demo.emotions import CUES, EMOTIONS, cues, profile
from fedser.demo.glottis import glottal_source
from fedser.demo.synth import RATE, synthesise
from fedser.demo.tract import HOP, filter_frames, frames_of, frequencies, resonances
from fedser.demo.voices import EVERYDAY, draw_voice


def speak(emotion: str, seed: int = 0, index: int = 0, seconds: float = 1.5) -> np.ndarray:
    return synthesise(emotion, draw_voice(seed, index), np.random.default_rng([seed, index, 7]), seconds)


@pytest.mark.parametrize("seconds", [0.5, 1.003, 2.0])
def test_length_type_and_level(seconds: float) -> None:
    speech = speak("neutral", seconds=seconds)
    assert speech.dtype == np.float32
    assert speech.shape == (round(RATE * seconds),)
    assert np.abs(speech).max() == pytest.approx(0.9, abs=1e-4)


def test_the_same_seed_gives_the_same_samples_and_another_gives_others() -> None:
    assert np.array_equal(speak("anger"), speak("anger"))
    assert not np.array_equal(speak("anger"), speak("anger", seed=1))
    assert not np.array_equal(speak("anger"), speak("sadness"))


def test_what_cannot_be_spoken_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5 seconds"):
        speak("anger", seconds=0.4)
    with pytest.raises(KeyError):
        speak("hunger")


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_every_emotion_and_many_voices_stay_finite(emotion: str) -> None:
    for index in range(12):
        speech = synthesise(emotion, draw_voice(3, index, EVERYDAY), np.random.default_rng(index), 0.6)
        assert np.isfinite(speech).all()
        assert speech.std() > 0.01


def test_the_glottal_source_has_the_asked_frequency() -> None:
    f0 = np.full(RATE, 125.0)
    pulses, flow = glottal_source(f0, RATE, open_quotient=0.6, jitter=0.0, shimmer=0.0, rng=np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(pulses))
    assert set(np.argsort(spectrum)[-4:] % 125) == {0}  # one second: bin = hertz, so all peaks are harmonics
    assert flow.min() == pytest.approx(0.0, abs=1e-9)
    assert flow.max() == pytest.approx(1.0, abs=0.01)
    assert np.mean(flow == 0.0) == pytest.approx(0.4, abs=0.02)  # the closed share of the period


def test_jitter_and_shimmer_make_periods_unequal() -> None:
    def spread(jitter: float, shimmer: float) -> float:
        pulses, _ = glottal_source(
            np.full(RATE, 100.0),
            RATE,
            open_quotient=0.6,
            jitter=jitter,
            shimmer=shimmer,
            rng=np.random.default_rng(1),
        )
        return float(pulses[160:].reshape(-1, 160).std(axis=0).max())

    assert spread(0.0, 0.0) < 1e-6
    assert spread(0.01, 0.0) > 0.01
    assert spread(0.0, 0.05) > 0.01


def test_a_resonator_peaks_at_its_centre_with_its_bandwidth() -> None:
    gain = np.abs(resonances(np.array([[1500.0]]), np.array([[100.0]]), RATE))[0]
    hertz = frequencies(RATE)
    peak = gain.argmax()
    assert hertz[peak] == pytest.approx(1500, abs=10)
    assert gain[0] == pytest.approx(1.0)
    half = hertz[gain > gain[peak] / np.sqrt(2)]
    assert half[-1] - half[0] == pytest.approx(100, abs=32)


def test_frames_reassemble_a_signal_and_filter_it_like_a_convolution() -> None:
    signal = np.random.default_rng(2).standard_normal(1234)
    count = frames_of(len(signal))
    np.testing.assert_allclose(filter_frames(signal, np.ones((count, 513))), signal, atol=1e-12)
    taps = np.array([0.5, -0.25, 0.125, 1.0])
    gain = np.tile(np.fft.rfft(taps, 1024), (count, 1))
    np.testing.assert_allclose(filter_frames(signal, gain), np.convolve(signal, taps)[: len(signal)], atol=1e-12)
    assert HOP * (count - 1) >= len(signal) - HOP


def mean_f0(speech: np.ndarray) -> float:
    """A slow and simple pitch estimate: the median autocorrelation peak of loud 40 ms blocks, hertz."""
    blocks = speech[: len(speech) // 640 * 640].reshape(-1, 640)
    loud = blocks[np.square(blocks).mean(axis=1) > 0.3 * np.square(blocks).mean()]
    lags = [np.correlate(b, b, "full")[639:][27:220].argmax() + 27 for b in loud]
    return RATE / float(np.median(lags))


def test_fear_is_spoken_higher_than_sadness_by_most_voices() -> None:
    higher = [
        mean_f0(speak("fear", seed=5, index=index)) > mean_f0(speak("sadness", seed=5, index=index))
        for index in range(10)
    ]
    assert sum(higher) >= 8


def test_voices_are_drawn_by_seed_and_differ() -> None:
    voices = [draw_voice(0, index) for index in range(500)]
    assert len({(voice.f0, voice.tract, voice.breath) for voice in voices}) == 500
    assert len({voice.name for voice in voices}) == 500
    assert draw_voice(0, 3).f0 == voices[3].f0
    assert draw_voice(1, 3).f0 != voices[3].f0
    women = [voice.f0 for voice in voices if voice.gender == "female"]
    assert len(women) == 250
    assert 185 < np.mean(women) < 225


def test_cues_are_named_and_profiles_complete() -> None:
    assert all(profile(emotion).shape == (len(CUES),) for emotion in EMOTIONS)
    assert not profile("neutral").any()
    assert cues(pitch=2.0)[CUES.index("pitch")] == 2.0
    with pytest.raises(KeyError, match="melody"):
        cues(melody=1.0)
