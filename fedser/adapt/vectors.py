"""One vector for each utterance, for what looks at a site with linear eyes: the method ``fedser`` and the guard."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

WIDEST = 4096  # more values than any set of descriptors has, and more frames than an utterance's spectrogram


def vectors(x: Tensor, b: Tensor) -> Tensor:
    """Descriptors as they are, the frames' statistics of a spectrogram, the network's view of anything longer.

    Args:
        x: normalised features [N, \\*shape].
        b: bottleneck outputs [N, d].

    Returns:
        Vectors [N, D]: x of at most 4,096 values; of spectrograms [N, …, frames] with at most as many frames the mean
        and standard deviation over the frames; else (waveforms, pooled layers of large encoders) b at length 1.
    """
    if x.shape[-1] > WIDEST:
        return functional.normalize(b, dim=1)
    if x.dim() == 2:
        return x
    return torch.cat([x.mean(dim=-1).flatten(1), x.std(dim=-1, correction=0).flatten(1)], dim=1)
