"""Voice activity by energy, with a noise floor that follows the recording.

Needs no model and no labels: the level of 10 ms frames is compared with the quietest tenth of the 20 s around
them. What is kept of a recording in memory is one number per frame and channel, so hours of sound are no problem.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fedser.audio import io

FRAMES_A_SECOND = 100
_BLOCK = 1 << 18

_SMOOTHING = 5
"""Frames over which levels are averaged."""
_WINDOW = 20 * FRAMES_A_SECOND
_LOWEST = -65.0
"""dB of full scale below which nothing is speech."""
_RANGE = 45.0
"""dB below the loudest speech at which nothing is speech."""
_LEAST_CONTRAST = 10.0
"""dB: where the level moves less than this there is no floor to be seen, only one steady sound."""
_LEAKAGE = 15.0
"""dB by which a channel that only hears the other party lies below it."""

GAP = 0.3
"""Seconds of quiet that end a stretch of speech (hangover)."""
CLICK = 0.12
"""Seconds below which a stretch is a click."""
PAD = 0.1
"""Seconds kept before and after a stretch."""

Span = tuple[float, float]
"""Start and end in seconds."""


def levels(path: Path, *, mix: bool) -> np.ndarray:
    """Level of each 10 ms frame, read by blocks.

    Args:
        path: the recording.
        mix: average the channels first.

    Returns:
        float32 of shape [1 or channels, frames], in dB of full scale, smoothed over 50 ms; a constant offset
        does not count.

    Raises:
        AudioError: the recording cannot be decoded.
    """
    parts: list[np.ndarray] = []
    with io.opened(path) as sound:
        rate = io.usable_rate(path, sound)
        rest = np.zeros((0, 1 if mix else sound.channels), dtype=np.float64)
        done = 0  # whole frames so far
        while len(block := sound.read(_BLOCK, dtype="float64", always_2d=True)):
            wave = np.concatenate([rest, block.mean(axis=1, keepdims=True) if mix else block])
            origin = _edge(done, rate)
            count = (origin + len(wave)) * FRAMES_A_SECOND // rate - done
            edges = np.array([_edge(done + index, rate) - origin for index in range(count + 1)])
            parts.append(_power(wave, edges))
            rest, done = wave[edges[-1] :], done + count
        width = rest.shape[1]
    power = np.concatenate(parts) if parts else np.zeros((0, width))
    smooth = np.stack([_smooth(column) for column in power.T]) if len(power) else power.T
    return np.asarray(10.0 * np.log10(np.maximum(smooth, 1e-12)), dtype=np.float32)


def _edge(frame: int, rate: int) -> int:
    """First sample of a frame; exact for rates that 100 does not divide."""
    return -(-frame * rate // FRAMES_A_SECOND)


def _power(wave: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Variance of each frame, [frames, channels]."""
    if len(edges) < 2:
        return np.zeros((0, wave.shape[1]))
    lengths = np.diff(edges)[:, None]
    inside = wave[: edges[-1]]
    mean = np.add.reduceat(inside, edges[:-1], axis=0) / lengths
    square = np.add.reduceat(inside * inside, edges[:-1], axis=0) / lengths
    return np.maximum(np.nan_to_num(square - mean * mean, nan=0.0, posinf=0.0), 0.0)


def _smooth(power: np.ndarray) -> np.ndarray:
    kernel = np.ones(_SMOOTHING)
    return np.convolve(power, kernel, mode="same") / np.convolve(np.ones_like(power), kernel, mode="same")


def leakage(level: np.ndarray) -> np.ndarray:
    """Where a channel only hears another party: another channel is at least 15 dB louder there.

    Args:
        level: [channels, frames] in dB.

    Returns:
        bool of the same shape.
    """
    return np.asarray(level < level.max(axis=0, keepdims=True) - _LEAKAGE)


def speech(level: np.ndarray, leaked: np.ndarray | None = None) -> list[Span]:
    """Stretches of speech in one channel.

    Args:
        level: [frames] in dB, from :func:`levels`.
        leaked: bool [frames], from :func:`leakage`; no speech of this party there.

    Returns:
        Spans in seconds, in order, apart from each other; a pause of at least 0.3 s lies between two of them.
    """
    if len(level) == 0:
        return []
    loud = float(np.percentile(level, 99.5))
    if loud < _LOWEST:
        return []
    quiet = float(np.percentile(level, 5.0))
    if loud - quiet < _LEAST_CONTRAST and len(level) > _WINDOW:
        return []  # a long steady sound: hum or hiss
    floor = np.minimum(_floor(level), loud - _LEAST_CONTRAST)
    threshold = floor + np.clip(0.25 * (loud - floor), 3.0, 12.0)
    active = level > np.maximum(threshold, max(_LOWEST, loud - _RANGE))
    if leaked is not None:
        active &= ~leaked
    return _padded(_stretches(active), len(level))


def _floor(level: np.ndarray) -> np.ndarray:
    """The tenth percentile of the 20 s around each frame, computed once a second."""
    centres = np.arange(0, len(level), FRAMES_A_SECOND)
    half = _WINDOW // 2
    floors = [np.percentile(level[max(0, at - half) : at + half], 10.0) for at in centres]
    return np.asarray(np.interp(np.arange(len(level)), centres, floors))


def _stretches(active: np.ndarray) -> list[tuple[int, int]]:
    """Runs of active frames, after closing short gaps and dropping clicks."""
    change = np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8), [0]])))
    runs: list[tuple[int, int]] = []
    for first, last in change.reshape(-1, 2).tolist():
        if last - first < CLICK * FRAMES_A_SECOND / 2:
            continue
        if runs and first - runs[-1][1] < GAP * FRAMES_A_SECOND:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    return [(first, last) for first, last in runs if last - first >= CLICK * FRAMES_A_SECOND]


def _padded(runs: list[tuple[int, int]], frames: int) -> list[Span]:
    """Seconds, with a margin that the hangover leaves free."""
    return [
        (max(first / FRAMES_A_SECOND - PAD, 0.0), min(last / FRAMES_A_SECOND + PAD, frames / FRAMES_A_SECOND))
        for first, last in runs
    ]
