"""Recordings to waveforms: any format, rate and channel count in, 16 kHz mono out.

Formats are told by content, not by name: an AIFF recording called ``.wav`` reads like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile

from fedser.audio.header import implausible_rate
from fedser.errors import AudioError

SAMPLE_RATE = 16000
"""Hz of every waveform inside fedser."""

_BLOCK = 1 << 20
_LARGEST_TERM = 50_000
_HINT = "Check that the file plays, or leave it out."
_SLACK = 0.1
"""Seconds by which ``end`` may exceed the recording: annotations are rounded."""


def read(
    path: Path,
    *,
    channel: int | None = None,
    start: float | None = None,
    end: float | None = None,
) -> np.ndarray:
    """Read a recording, or a part of one, as 16 kHz mono.

    Args:
        path: WAV, FLAC, OGG, AIFF or MP3, at any rate, with any number of channels.
        channel: zero-based channel; None averages all channels.
        start: first second (frame-exact); None is the beginning.
        end: last second; None is the end of the file.

    Returns:
        float32 of shape [T], T = ⌈frames · 16000 / rate⌉; full scale is ±1.

    Raises:
        AudioError: the file cannot be decoded, holds non-finite samples, or lacks that channel or part,
            or it claims a rate that no recording of speech has.
    """
    with opened(path) as sound:
        first, count = bounds(path, sound.frames, sound.samplerate, start, end)
        if channel is not None and not 0 <= channel < sound.channels:
            raise AudioError(f"{path} has no channel {channel}: it has {sound.channels}.", "Channels count from 0.")
        rate = usable_rate(path, sound)
        frames = _frames(sound, first, count)
    wave = frames[:, channel] if channel is not None else frames.mean(axis=1)
    if not np.isfinite(wave).all():
        raise AudioError(f"{path} holds samples that are no finite numbers.", _HINT)
    return resample(wave, rate)


@contextmanager
def opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """Open a recording for reading; every failure, in the ``with`` block too, is an :class:`AudioError`."""
    try:
        with soundfile.SoundFile(str(path)) as sound:
            yield sound
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        if not path.is_file():
            raise AudioError(f"{path} does not exist or is no file.", "Check the path.") from None
        raise AudioError(f"{path} cannot be decoded: {_reason(error)}.", _HINT) from None


def usable_rate(path: Path, sound: soundfile.SoundFile) -> int:
    """The sample rate in Hz.

    Raises:
        AudioError: no recording of speech has that rate.
    """
    rate = int(sound.samplerate)
    if problem := implausible_rate(rate):
        raise AudioError(f"{path} cannot be used: {problem}.", _HINT)
    return rate


def bounds(path: Path, frames: int, rate: int, start: float | None, end: float | None) -> tuple[int, int]:
    """First frame and number of frames of a part given in seconds.

    Raises:
        AudioError: the part does not lie inside the recording.
    """
    first = round((start or 0.0) * rate)
    last = frames if end is None else min(round(end * rate), frames)
    inside = end is None or end * rate <= frames + _SLACK * rate
    if first < 0 or first > last or not inside or (first == last and (start, end) != (None, None)):
        length = f"{frames / rate:.3f} s"
        part = f"{start or 0.0:g} to {length if end is None else f'{end:g} s'}"
        raise AudioError(f"{path} has no part {part}: it lasts {length}.", "Correct start and end.")
    return first, last - first


def resample(wave: np.ndarray, rate: int) -> np.ndarray:
    """Resample to 16 kHz with a windowed-sinc polyphase filter (Kaiser, 80 dB, pass band to 90 % of Nyquist).

    Args:
        wave: float32 of shape [T].
        rate: its sample rate in Hz. Every rate up to 50 kHz is met exactly (24,414 Hz is 8000/12207), a higher
            one that shares no factor with 16,000 within 20 parts in a million: less than sound cards' clocks differ.

    Returns:
        float32 of shape [⌈T · 16000 / rate⌉].
    """
    if rate == SAMPLE_RATE or wave.size == 0:
        return np.ascontiguousarray(wave, dtype=np.float32)
    from scipy.signal import resample_poly

    up, down = _ratio(rate)
    filtered = resample_poly(wave, up, down, window=_low_pass(max(up, down)))
    result = np.zeros(-(-len(wave) * SAMPLE_RATE // rate), dtype=np.float32)
    shared = min(len(result), len(filtered))
    result[:shared] = filtered[:shared]
    return result


def _ratio(rate: int) -> tuple[int, int]:
    """Numbers of samples after and before: 16000 / rate in terms that keep the filter small."""
    down = Fraction(max(rate, SAMPLE_RATE), min(rate, SAMPLE_RATE)).limit_denominator(_LARGEST_TERM)
    while down.numerator > _LARGEST_TERM:
        down = down.limit_denominator(down.denominator // 2)
    more, less = down.as_integer_ratio()
    return (less, more) if rate > SAMPLE_RATE else (more, less)


@lru_cache(maxsize=8)
def _low_pass(factor: int) -> np.ndarray:
    """Linear-phase low pass at 0.95/factor of the upsampled Nyquist frequency, 50 zero crossings a side."""
    from scipy.special import i0

    half, cutoff = 50 * factor, 0.95 / factor
    at = np.arange(half + 1)
    window = i0(8.0 * np.sqrt(1.0 - (at / half) ** 2)) / i0(8.0)
    side = cutoff * np.sinc(cutoff * at) * window
    taps = np.concatenate([side[:0:-1], side])
    return np.asarray(taps / taps.sum(), dtype=np.float32)


def _frames(sound: soundfile.SoundFile, first: int, count: int) -> np.ndarray:
    """Frames [count or fewer, channels], read by blocks: a header that claims too much costs no memory."""
    if first:
        sound.seek(first)
    parts = []
    while count > 0:
        part = sound.read(min(count, _BLOCK), dtype="float32", always_2d=True)
        if not len(part):
            break
        parts.append(part)
        count -= len(part)
    return np.concatenate(parts) if parts else np.zeros((0, sound.channels), dtype=np.float32)


def _reason(error: Exception) -> str:
    """The library's words without the path and the full stop."""
    text = getattr(error, "error_string", None) or str(error)
    return " ".join(str(text).split()).rstrip(".").lower() or "unknown reason"
