"""``pretrained``: mean and standard deviation over time of each layer of a frozen pretrained encoder.

With the encoder frozen these never change, so they are computed once an utterance and cached like any features; which
layers matter is learnt afterwards, by weights over them. Utterances keep their own length.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE
from fedser.audio.features.waveform import cut, standardised
from fedser.pretrained import Pretrained
from fedser.pretrained.architectures import architecture

ALGORITHM = 1  # raised with every change that moves values
LONGEST = 20 * SAMPLE_RATE  # attention grows with the square of the length: longer ones are cut around their centre
TOGETHER = 8  # utterances in one pass


def size(wanted: Pretrained) -> int:
    """2 · (L + 1) · D: the statistics of what goes into the first layer and of each layer's output, in one vector."""
    row = architecture(wanted.family, wanted.size)
    return row.statistics * row.levels * row.width


def pretrained(waveforms: Sequence[Tensor], wanted: Pretrained, device: torch.device) -> Tensor:
    """Pooled layers of peak-normalised utterances, each [T]; float32 [B, size].

    Raises:
        DependencyError: the weights are not on this machine.
    """
    from fedser.pretrained import trunk, weights

    row, model = architecture(wanted.family, wanted.size), weights.load(wanted, device)
    found = []
    for start in range(0, len(waveforms), TOGETHER):
        some = [cut(standardised(x), LONGEST).to(device) for x in waveforms[start : start + TOGETHER]]
        found.append(trunk.levels(model, some, row.receptive).flatten(1).cpu())
    return torch.cat(found)
