"""From waveforms to frames: one ragged row of frames for a group of utterances.

Frames of all utterances of a group lie one after the other, so nothing is computed on padding. Each frame is
centred in its 10 ms hop; windows that reach over an utterance's edge see zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fedser.errors import AudioError

SAMPLE_RATE = 16_000
HOP = 160  # 10 ms
BLOCK = 2048  # frames
MARGIN = 640  # zeros around each utterance: at least half the longest window


def peak_normalised(waveform: np.ndarray) -> Tensor:
    """Remove the mean and scale the largest absolute sample to 1; silence stays zero. float32 [T].

    Raises:
        AudioError: no samples, or values that are not numbers.
    """
    if waveform.ndim != 1 or waveform.size == 0:
        raise AudioError("An utterance has no samples.", "Leave it out; 'fedser corpus scan' finds such recordings.")
    x = torch.from_numpy(np.array(waveform, dtype=np.float32))
    if not bool(torch.isfinite(x).all()):
        raise AudioError("An utterance holds values that are not numbers.", "Leave it out or convert the file again.")
    x = x / x.abs().max().clamp_min(1e-9)
    x = x - x.mean(dtype=torch.float64).float()
    peak = x.abs().max()
    # A constant leaves nothing but rounding: that is silence too.
    return x / peak if peak > 1e-4 else torch.zeros_like(x)


@dataclass(frozen=True)
class Group:
    """Some utterances, laid out for batched analysis.

    Attributes:
        signal: all samples in one row, with MARGIN zeros around each utterance; float32 [S].
        centres: sample position of each frame's centre in ``signal``; int64 [N].
        counts: frames of each utterance, adding up to N.
        seconds: length of each utterance; float32 [B].
    """

    signal: Tensor
    centres: Tensor
    counts: tuple[int, ...]
    seconds: Tensor

    @classmethod
    def of(cls, waveforms: Sequence[Tensor], device: torch.device) -> Group:
        """Lay out utterances (each float32 [T], at 16 kHz) one after the other."""
        pieces, centres, counts, position = [], [], [], 0
        zeros = torch.zeros(MARGIN)
        for waveform in waveforms:
            # A whole number of hops, so that every frame has samples on both sides.
            count = -(-len(waveform) // HOP)
            tail = torch.zeros(count * HOP - len(waveform))
            pieces += [zeros, waveform, tail, zeros]
            centres.append(torch.arange(count) * HOP + (position + MARGIN + HOP // 2))
            counts.append(count)
            position += 2 * MARGIN + count * HOP
        seconds = torch.tensor([len(w) / SAMPLE_RATE for w in waveforms], dtype=torch.float32)
        signal, centre = torch.cat(pieces).to(device), torch.cat(centres).to(device)
        return cls(signal, centre, tuple(counts), seconds.to(device))

    def blocks(self, length: int, chosen: Tensor | None = None) -> Iterator[Tensor]:
        """Frames of ``length`` samples around the centres, or the chosen centres, in blocks [≤ BLOCK, length].

        Blocks keep the working set inside the processor's cache, and the memory for an hour's recording small.
        """
        windows = self.signal.unfold(0, length, 1)
        centres = self.centres if chosen is None else self.centres[chosen]
        for start in range(0, len(centres), BLOCK):
            yield windows[centres[start : start + BLOCK] - length // 2]

    def padded(self, rows: Tensor) -> Tensor:
        """Frame values [N, ...] as one padded row an utterance [B, T, ...], zeros behind each end."""
        return pad_sequence(list(torch.split(rows, list(self.counts))), batch_first=True)

    def mask(self) -> Tensor:
        """True where :meth:`padded` holds a frame; bool [B, T]."""
        counts = torch.tensor(self.counts, device=self.signal.device)
        return torch.arange(max(self.counts), device=self.signal.device) < counts[:, None]

    def previous(self, rows: Tensor) -> Tensor:
        """Each frame's predecessor in its utterance; a first frame is its own. [N, ...] → [N, ...]."""
        index = torch.arange(len(rows), device=rows.device) - 1
        starts = torch.tensor(self.counts, device=rows.device).cumsum(0).roll(1)
        starts[0] = 0
        index[starts] += 1
        return rows[index]


def groups(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of utterances of similar length: at most ``budget`` samples a group, or one utterance."""
    group: list[int] = []
    total = 0
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if group and total + lengths[index] > budget:
            yield group
            group, total = [], 0
        group.append(index)
        total += lengths[index]
    if group:
        yield group
