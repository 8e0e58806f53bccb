"""One pass over a recording: its digests and the level, clipping and soundness of each utterance in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import log10, sqrt
from pathlib import Path

import numpy as np

from fedser.audio import io
from fedser.audio.utterance import Utterance
from fedser.errors import AudioError

_BLOCK = 1 << 18
FULL_SCALE = 0.999


@dataclass(slots=True)
class Part:
    """Running figures of one utterance inside its file.

    Attributes:
        first, last: frames of the file that it spans, ``last`` excluded.
        channel: the channel, or None for the mean of all.
        frames: number of frames seen.
        total, squares: sum and sum of squares of the mono samples.
        runs: samples inside runs of at least three at full scale, over all channels read.
        samples: samples over all channels read.
        finite: whether all samples were finite numbers (of a size that can be squared and summed).
    """

    first: int
    last: int
    channel: int | None
    frames: int = 0
    total: float = 0.0
    squares: float = 0.0
    runs: int = 0
    samples: int = 0
    finite: bool = True

    @property
    def rms(self) -> float:
        """Root mean square around the mean, so that a constant offset is silence."""
        if self.frames == 0:
            return 0.0
        mean = self.total / self.frames
        return sqrt(max(self.squares / self.frames - mean * mean, 0.0))

    @property
    def decibel(self) -> float:
        """The level in dB of full scale, not below −200."""
        return 20.0 * log10(max(self.rms, 1e-10))

    @property
    def clipped(self) -> float:
        """Share of samples that are clipped."""
        return self.runs / self.samples if self.samples else 0.0

    def add(self, block: np.ndarray) -> None:
        """Take in the next frames, float32 [n, channels]."""
        chosen = block if self.channel is None else block[:, self.channel : self.channel + 1]
        with np.errstate(over="ignore", invalid="ignore"):
            mono = chosen.mean(axis=1, dtype=np.float64)
            total, squares = float(mono.sum()), float(np.dot(mono, mono))
        self.finite = self.finite and bool(np.isfinite(squares))
        self.frames += len(mono)
        self.total += total
        self.squares += squares
        self.samples += chosen.size
        self.runs += _runs_at_full_scale(chosen)


@dataclass(frozen=True, slots=True)
class Recording:
    """What one pass over a file found.

    Attributes:
        digest: SHA-256 (hex) of the file's bytes.
        content: SHA-256 (hex) of rate, channels and decoded samples: equal for a WAV and its FLAC copy.
        claimed, frames: number of frames that the header claims, and that could be read.
        parts: for each utterance its figures, or ``reason: detail`` where the file has no such part.
    """

    rate: int
    channels: int
    digest: str
    content: str
    claimed: int
    frames: int
    parts: tuple[Part | str, ...]


def measure(path: Path, utterances: Sequence[Utterance]) -> Recording:
    """Read a file once, by blocks of bounded size.

    Args:
        path: the recording.
        utterances: the parts of it to measure.

    Raises:
        AudioError: the file cannot be decoded to its end.
        OSError: the file cannot be read at all.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with io.opened(path) as sound:
        rate, channels, claimed = int(sound.samplerate), int(sound.channels), int(sound.frames)
        parts = [_part(path, utterance, claimed, rate, channels) for utterance in utterances]
        content = hashlib.sha256(f"{rate} {channels}".encode())
        frames = 0
        while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
            content.update(np.add(block, 0.0, dtype=np.float32).data)  # −0 becomes +0
            for part in parts:
                if isinstance(part, Part) and part.first < frames + len(block) and part.last > frames:
                    part.add(block[max(part.first - frames, 0) : part.last - frames])
            frames += len(block)
        for first in {part.first for part in parts if isinstance(part, Part) and 0 < part.first < frames}:
            sound.seek(first)  # a damaged file may play through and yet not seek
    return Recording(rate, channels, digest, content.hexdigest(), claimed, frames, tuple(parts))


def _part(path: Path, utterance: Utterance, frames: int, rate: int, channels: int) -> Part | str:
    if utterance.channel is not None and not 0 <= utterance.channel < channels:
        return f"no_channel: channel {utterance.channel} was asked for, it has {channels}"
    if utterance.start is None and utterance.end is None:
        return Part(0, 1 << 62, utterance.channel)
    try:
        first, count = io.bounds(path, frames, rate, utterance.start, utterance.end)
    except AudioError:
        length = frames / rate
        return f"out_of_range: {utterance.start or 0:g} to {utterance.end or length:g} s of {length:.3f} s"
    return Part(first, first + count, utterance.channel)


def _runs_at_full_scale(block: np.ndarray) -> int:
    """Samples of [n, channels] that lie in runs of at least three at full scale with the same sign."""
    if len(block) < 3 or max(block.max(), -block.min()) < FULL_SCALE:
        return 0
    inside = 0
    for side in (block >= FULL_SCALE, block <= -FULL_SCALE):
        middle = side[:-2] & side[1:-1] & side[2:]
        run = np.zeros_like(side)
        for shift in range(3):
            run[shift : len(run) - 2 + shift] |= middle
        inside += int(np.count_nonzero(run))
    return inside
