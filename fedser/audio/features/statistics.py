"""Statistics of frame values over masks: each utterance's own frames and no others count.

Most functions take values [B, T, D] and a mask [B, T] and return [B, D] or more, 0 where the mask is empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked frames; [B, D]."""
    weight = mask[..., None].to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp_min(1.0)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Standard deviation (divided by the number of frames) over the masked frames; [B, D]."""
    centred = values - mean(values, mask)[:, None]
    return mean(centred.square(), mask).sqrt()


def quantiles(values: Tensor, mask: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles with linear interpolation between ranks, as numpy's default; [B, D, len(levels)]."""
    if values.shape[1] == 0:
        return values.new_zeros(len(values), values.shape[2], len(levels))
    count = mask.sum(1)
    ordered = values.masked_fill(~mask[..., None], torch.inf).sort(1).values
    found = []
    for level in levels:
        rank = level * (count - 1).clamp_min(0).to(values.dtype)
        low = rank.floor().long()
        high = (low + 1).minimum((count - 1).clamp_min(0))
        below = ordered.gather(1, low[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]
        above = ordered.gather(1, high[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]
        part = (rank - low).to(values.dtype)[:, None]
        found.append(torch.where(count[:, None] > 0, below + part * (above - below), 0.0))
    return torch.stack(found, 2)


def smooth(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of each frame and its masked neighbours; frames outside the mask become 0. [B, T, D]."""
    weight = mask[..., None].to(values.dtype)
    return torch.where(mask[..., None], _three(values * weight) / _three(weight).clamp_min(1.0), 0.0)


def _three(values: Tensor) -> Tensor:
    total = values.clone()
    total[:, 1:] += values[:, :-1]
    total[:, :-1] += values[:, 1:]
    return total


def slopes(values: Tensor, mask: Tensor) -> Tensor:
    """Mean and deviation of rising, then of falling steps between neighbouring masked frames; [B, D, 4]."""
    step = values.diff(dim=1)
    both = (mask[:, 1:] & mask[:, :-1])[..., None]
    found = []
    for direction in (1.0, -1.0):
        size = direction * step
        weight = (both & (size > 0.0)).to(values.dtype)
        count = weight.sum(1).clamp_min(1.0)
        centre = (size * weight).sum(1) / count
        around = ((size - centre[:, None]).square() * weight).sum(1) / count
        found += [centre, around.sqrt()]
    return torch.stack(found, 2)


def runs(mask: Tensor) -> Tensor:
    """Number of runs of masked frames, mean and deviation of their lengths in frames; [B, 3]."""
    padded = torch.nn.functional.pad(mask.long(), (1, 1))
    edge = padded.diff(dim=1)
    number = (edge == 1).sum(1)
    position = torch.arange(edge.shape[1], device=mask.device).expand_as(edge)
    length = torch.zeros_like(edge)
    starts, ends = edge == 1, edge == -1
    # The k-th end closes the k-th start, so a row's sorted starts and ends pair up in order.
    begin = position.masked_fill(~starts, edge.shape[1]).sort(1).values
    finish = position.masked_fill(~ends, edge.shape[1]).sort(1).values
    length = (finish - begin).to(torch.float32)
    there = torch.arange(edge.shape[1], device=mask.device) < number[:, None]
    average, deviation = mean(length[..., None], there), spread(length[..., None], there)
    return torch.cat([number[:, None].to(torch.float32), average, deviation], 1)


def peaks(values: Tensor, mask: Tensor) -> Tensor:
    """Number of local maxima above the utterance's mean, for values [B, T]; [B, 1]."""
    centre = mean(values[..., None], mask)
    low = values.masked_fill(~mask, -torch.inf)
    left = torch.nn.functional.pad(low, (1, 0), value=-torch.inf)[:, :-1]
    right = torch.nn.functional.pad(low, (0, 1), value=-torch.inf)[:, 1:]
    found = (low > left) & (low >= right) & (low > centre)
    return found.sum(1, keepdim=True).to(torch.float32)
