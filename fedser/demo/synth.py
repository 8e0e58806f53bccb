"""The synthesiser: an emotion and a voice become an utterance.

Glottal pulses and aspiration (:mod:`fedser.demo.glottis`) pass through moving formants (:mod:`fedser.demo.tract`);
syllables, pitch and voice quality follow the emotion's cues (:mod:`fedser.demo.emotions`). The result is good enough
to carry emotion in its prosody, not to be mistaken for a person.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from fedser.demo.emotions import CUES, UNITS
from fedser.demo.glottis import aspiration, glottal_source
from fedser.demo.phones import Phone, syllables
from fedser.demo.tract import HOP, filter_frames, frames_of, frequencies, resonances
from fedser.demo.voices import Voice

RATE = 16_000
_FRAME = HOP / RATE  # seconds
_VARIATION = 0.2  # standard deviation of every cue from one utterance to the next, in units
_NEUTRAL = (500.0, 1500.0, 2500.0)  # formants of the relaxed tract, hertz

Signal = NDArray[np.float64]
Changes = dict[str, float]


def synthesise(emotion: str, voice: Voice, rng: np.random.Generator, seconds: float) -> NDArray[np.float32]:
    """Speak one utterance of nonsense syllables.

    Args:
        emotion: one of :data:`fedser.demo.emotions.EMOTIONS`.
        voice: the speaker.
        rng: the source of all chance in this utterance; the same state gives the same samples.
        seconds: length of the recording; speech fills it but for a short silence at both ends.

    Returns:
        Samples at 16 kHz, float32 [round(16000 · seconds)], with a peak of at most 0.9.

    Raises:
        KeyError: an unknown emotion.
        ValueError: fewer than 0.5 seconds.
    """
    if seconds < 0.5:
        raise ValueError("an utterance lasts at least 0.5 seconds")
    strength = float(np.clip(rng.normal(1.0, 0.25), 0.3, 1.6))
    units = voice.expression(emotion, strength) + rng.normal(0.0, _VARIATION, len(CUES))
    change = {name: float(value) * UNITS[name] for name, value in zip(CUES, units, strict=True)}
    samples = round(RATE * seconds)
    phones, syllable = _rhythm(voice, change, frames_of(samples), rng)
    f0 = _pitch(voice, change, syllable, rng)
    sound = _voiced(voice, change, phones, f0, samples, rng) + _turbulence(voice, change, phones, samples, rng)
    return (0.9 * sound / max(float(np.abs(sound).max()), 1e-9)).astype(np.float32)


def _rhythm(
    voice: Voice, change: Changes, frames: int, rng: np.random.Generator
) -> tuple[list[tuple[Phone, int]], NDArray[np.int64]]:
    """Stretches with their lengths in frames, and each frame's syllable number (−1 in silence) [frames]."""
    rate = voice.rate * np.exp(change["tempo"])
    silent = Phone(_NEUTRAL, 0.0, 0.0, 3000.0, 0.0)
    edge = round(0.06 / _FRAME)
    plan: list[tuple[Phone, int]] = [(silent, edge)]
    owner = [-1] * edge
    room = frames - 2 * edge
    pause = float(np.clip(0.10 + change["pauses"], 0.0, 0.35))  # chance of a pause after a syllable
    for number, stretches in enumerate(syllables(4 * frames, voice.population.vowels, rng)):
        stretch = 5.0 / rate * np.exp(rng.normal(0.0, 0.12))
        lengths = [max(1, round(phone.seconds * stretch / _FRAME)) for phone in stretches]
        if sum(lengths) > room:
            break
        plan.extend(zip(stretches, lengths, strict=True))
        owner.extend([number] * sum(lengths))
        room -= sum(lengths)
        hold = round(rng.uniform(0.08, 0.25) / _FRAME) if rng.random() < pause else 0
        if 0 < hold < room:
            plan.append((silent, hold))
            owner.extend([-1] * hold)
            room -= hold
    plan.append((silent, frames - len(owner)))
    owner.extend([-1] * (frames - len(owner)))
    return plan, np.array(owner)


def _pitch(voice: Voice, change: Changes, syllable: NDArray[np.int64], rng: np.random.Generator) -> Signal:
    """Fundamental frequency per frame, hertz [frames]: declination, accents, a last movement, tremor."""
    frames = len(syllable)
    time = np.arange(frames) * _FRAME
    count = int(syllable.max()) + 1
    width = voice.range * np.exp(change["range"])
    accents = np.where(rng.random(count) < 0.45, rng.normal(1.0, 0.3, count), rng.normal(-0.3, 0.3, count))
    progress = np.arange(count) / max(count - 1, 1)
    targets = width * (accents + 0.8 * (0.5 - progress))  # declination
    targets[-1] += -0.8 * voice.range + change["final"]
    centres = np.array([time[syllable == number].mean() for number in range(count)])
    tones = gaussian_filter1d(np.interp(time, centres, targets), 3.0, mode="nearest")
    depth = max(0.0, change["tremor"])
    tremor = depth * np.sin(2 * np.pi * (rng.uniform(5.0, 7.5) * time + rng.random()))
    drift = gaussian_filter1d(rng.normal(0.0, 1.0, frames), 6.0) * 0.5
    semitones = change["pitch"] + tones + tremor + drift
    f0: Signal = np.clip(voice.f0 * 2.0 ** (semitones / 12.0), 55.0, 600.0)
    return f0


def _track(phones: list[tuple[Phone, int]], values: list[float], sigma: float) -> Signal:
    """Piecewise constant targets, smoothed over ``sigma`` frames [frames]."""
    lengths = [length for _, length in phones]
    track: Signal = gaussian_filter1d(np.repeat(np.array(values, dtype=float), lengths), sigma, mode="nearest")
    return track


def _transfer(voice: Voice, change: Changes, phones: list[tuple[Phone, int]]) -> NDArray[np.complex128]:
    """The tract's gain per frame [frames, 513]: three formants that speak, five that hardly move."""
    space = max(0.4, 1.0 + change["precision"])
    smile = 1.0 + change["lips"] * np.array([0.6, 1.0, 1.0])
    moving = np.stack(
        [
            _track(phones, [rest + space * (phone.formants[number] - rest) for phone, _ in phones], sigma=2.2)
            for number, rest in enumerate(_NEUTRAL)
        ],
        axis=1,
    )
    fixed = np.array([[3500.0, 4500.0, 5500.0, 6500.0, 7500.0]])
    gain = np.ones((1, 1), dtype=np.complex128)
    for centres in (moving * smile, fixed):
        hertz = np.clip(centres * voice.tract, 180.0, 0.49 * RATE)
        widths = 50.0 + 0.035 * hertz + 4.0 * max(0.0, change["breath"])
        gain = gain * resonances(hertz, widths, RATE)
    return gain


def _voiced(
    voice: Voice, change: Changes, phones: list[tuple[Phone, int]], f0: Signal, samples: int, rng: np.random.Generator
) -> Signal:
    """Voice and aspiration through the formants [samples]."""
    opening = voice.open_quotient + 0.012 * change["breath"] - 0.03 * change["tilt"]
    rough = float(np.exp(change["jitter"]))
    track = np.interp(np.arange(samples) / HOP, np.arange(len(f0)), f0)
    pulses, flow = glottal_source(
        track,
        RATE,
        open_quotient=float(np.clip(opening, 0.3, 0.9)),
        jitter=voice.jitter * rough,
        shimmer=voice.shimmer * rough,
        rng=rng,
    )
    breath = 10.0 ** ((voice.breath + change["breath"]) / 20.0)
    onset = 2.2 * float(np.exp(-change["attack"]))  # frames
    level = np.clip(_track(phones, [phone.voice for phone, _ in phones], onset), 0.0, None)
    # Louder syllables carry the accents: level follows pitch, the more so the wider the range.
    accent = 1.6 * np.log2(f0 / np.median(f0)) * 6.0 + rng.normal(0.0, 1.0)
    level = level * 10.0 ** ((change["loudness"] + accent) / 20.0)
    gain = _transfer(voice, change, phones) * _tilt(voice.tilt + change["tilt"] + 0.25 * change["loudness"])
    source = pulses + breath * aspiration(flow, rng)
    return filter_frames(source, gain * level[:, None])


def _tilt(slope: float) -> Signal:
    """Gain of a source spectrum that is flatter (+) or steeper (−) above 400 Hz, decibels an octave [513]."""
    octaves = np.log2(np.clip(frequencies(RATE), 400.0, 6000.0) / 400.0)
    gain: Signal = 10.0 ** (float(np.clip(slope, -9.0, 7.0)) * octaves / 20.0)
    return gain


def _turbulence(
    voice: Voice, change: Changes, phones: list[tuple[Phone, int]], samples: int, rng: np.random.Generator
) -> Signal:
    """Noise of fricatives and bursts [samples]."""
    level = np.clip(_track(phones, [phone.noise for phone, _ in phones], 0.8), 0.0, None)
    level = level * 10.0 ** (0.5 * change["loudness"] / 20.0) * (1.0 + change["precision"])
    centres = _track(phones, [phone.centre for phone, _ in phones], 0.8) * voice.tract**0.5
    distance = (frequencies(RATE)[None, :] - centres[:, None]) / (0.28 * centres[:, None])
    return filter_frames(0.35 * rng.standard_normal(samples), level[:, None] / (1.0 + distance**2))
