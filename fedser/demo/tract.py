"""The vocal tract: resonators that move, applied in the short-time spectrum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]
Spectrum = NDArray[np.complex128]

HOP = 160  # samples between two frames: 10 ms at 16 kHz
_WINDOW = 2 * HOP
_FFT = 1024  # leaves 44 ms for a frame to ring on


def frequencies(rate: int) -> Signal:
    """Centre frequencies of the spectrum's bins, hertz [513]."""
    return np.asarray(np.fft.rfftfreq(_FFT, 1.0 / rate), dtype=np.float64)


def frames_of(samples: int) -> int:
    """How many frames cover a signal of so many samples."""
    return -(-samples // HOP) + 1


def resonances(centres: Signal, widths: Signal, rate: int) -> Spectrum:
    """Transfer function of a cascade of resonators with unit gain at 0 Hz (Fant 1960).

    Each is p p* / ((s − p)(s − p*)) with p = −πB + j2πF.

    Args:
        centres: resonance frequencies, hertz [frames, resonators].
        widths: their bandwidths, hertz [frames, resonators].
        rate: samples a second.

    Returns:
        Complex gain [frames, 513].
    """
    s = 2j * np.pi * frequencies(rate)[None, :]
    gain = np.ones((len(centres), s.shape[1]), dtype=np.complex128)
    for centre, width in zip(centres.T, widths.T, strict=True):
        pole = (-np.pi * width + 2j * np.pi * centre)[:, None]
        gain *= np.abs(pole) ** 2 / ((s - pole) * (s - pole.conj()))
    return gain


def filter_frames(signal: Signal, gain: Spectrum | Signal) -> Signal:
    """Filter a signal by gains that change from frame to frame (windowed overlap-add).

    Args:
        signal: samples [T].
        gain: one spectrum for each of ``frames_of(T)`` frames [frames, 513].

    Returns:
        The filtered signal [T].
    """
    count = frames_of(len(signal))
    padded = np.zeros((count + 1) * HOP)
    padded[HOP : HOP + len(signal)] = signal
    window = np.hanning(_WINDOW + 1)[:-1]  # sums to one at this hop
    blocks = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP] * window
    ringing = np.fft.irfft(np.fft.rfft(blocks, _FFT) * gain, _FFT)
    pieces = -(-_FFT // HOP)
    ringing = np.pad(ringing, ((0, 0), (0, pieces * HOP - _FFT))).reshape(count, pieces, HOP)
    out = np.zeros((count + pieces, HOP))
    for piece in range(pieces):
        out[piece : piece + count] += ringing[:, piece]
    return out.reshape(-1)[HOP : HOP + len(signal)]
