"""Rooms and channels: what happens to speech between the mouth and the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, fftconvolve, sosfilt

RATE = 16_000

Signal = NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """A recording place: room, line and microphone.

    Attributes:
        name: what it is called.
        reverberation: time in which the room's sound decays by 60 decibels, seconds; 0 is no room.
        distance: level of the room's sound against the direct sound, decibels.
        band: lower and upper cut-off frequency of the line, hertz; None is the full band.
        noise: signal-to-noise ratio, decibels.
        colour: slope of the noise spectrum, decibels an octave (0 white, −3 pink, −6 brown).
        hum: level of mains hum against the speech, decibels; None is none.
        slope: the microphone's colouring above 500 hertz, decibels an octave.
        gain: level of the recording's peak, 0 to 1.
    """

    name: str
    reverberation: float = 0.0
    distance: float = -12.0
    band: tuple[float, float] | None = None
    noise: float = 45.0
    colour: float = -3.0
    hum: float | None = None
    slope: float = 0.0
    gain: float = 0.7


STUDIO = Channel("studio", reverberation=0.08, distance=-18.0, noise=45.0)
CLINIC = Channel("clinic", reverberation=0.55, distance=-7.0, noise=26.0, colour=-3.0, hum=-38.0, gain=0.4)
PHONE = Channel("phone", reverberation=0.15, distance=-14.0, band=(300.0, 3400.0), noise=28.0, colour=0.0, gain=0.8)
OFFICE = Channel("office", reverberation=0.35, distance=-10.0, noise=20.0, colour=-5.0, slope=-2.5, gain=0.5)


def impulse_response(channel: Channel, rng: np.random.Generator) -> Signal:
    """A room's impulse response: the direct sound, then exponentially decaying noise (Schroeder 1962).

    Args:
        channel: the place.
        rng: the source of chance.

    Returns:
        Samples [T]; the energy of the tail is ``distance`` decibels against the direct sound's.
    """
    length = max(1, round(RATE * channel.reverberation))
    time = np.arange(length) / RATE
    decay = np.exp(-6.9 * time / max(channel.reverberation, 1e-3))
    tail = rng.standard_normal(length) * decay * (time > 0.004)
    energy = float(np.sum(tail**2))
    response = tail * np.sqrt(10.0 ** (channel.distance / 10.0) / energy) if energy > 0.0 else tail
    response[0] = 1.0
    return response


def record(speech: NDArray[np.float32], channel: Channel, room: Signal, rng: np.random.Generator) -> Signal:
    """Record speech through a place.

    Args:
        speech: dry samples at 16 kHz [T].
        channel: the place.
        room: its :func:`impulse_response`.
        rng: the source of chance (noise, a little gain).

    Returns:
        Samples [T] with a peak near ``channel.gain``, never above 1.
    """
    wet = fftconvolve(speech.astype(np.float64), room)[: len(speech)]
    wet = _shape(wet, channel.slope, 500.0)
    power = float(np.mean(wet**2)) + 1e-12
    hiss = _shape(rng.standard_normal(len(wet)), channel.colour, 60.0)
    level = channel.noise + rng.normal(0.0, 2.0)
    hiss *= np.sqrt(power * 10.0 ** (-level / 10.0) / (float(np.mean(hiss**2)) + 1e-12))
    heard = wet + hiss
    if channel.hum is not None:
        time = np.arange(len(wet)) / RATE
        mains = np.sin(2 * np.pi * 50.0 * time + rng.uniform(0, 6.28)) + 0.4 * np.sin(2 * np.pi * 150.0 * time)
        heard = heard + mains * np.sqrt(2 * power * 10.0 ** (channel.hum / 10.0))
    if channel.band is not None:
        heard = sosfilt(butter(4, channel.band, btype="bandpass", fs=RATE, output="sos"), heard)
    peak = channel.gain * 10.0 ** (rng.uniform(-3.0, 0.0) / 20.0)
    recorded: Signal = np.clip(heard * (peak / max(float(np.abs(heard).max()), 1e-9)), -1.0, 1.0)
    return recorded


def _shape(signal: Signal, slope: float, corner: float) -> Signal:
    """Tilt a signal's spectrum by ``slope`` decibels an octave above ``corner`` hertz [T]."""
    if slope == 0.0:
        return signal
    hertz = np.fft.rfftfreq(len(signal), 1.0 / RATE)
    octaves = np.log2(np.maximum(hertz, corner) / corner)
    shaped: Signal = np.fft.irfft(np.fft.rfft(signal) * 10.0 ** (slope * octaves / 20.0), len(signal))
    return shaped
