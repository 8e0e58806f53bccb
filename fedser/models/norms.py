"""Normalisation layers in three variants, for vectors and for feature maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

NormKind = Literal["batch", "layer", "group"]


class VectorGroupNorm(nn.GroupNorm):
    """Group normalisation of ``[B, features]``, also for a batch of one.

    ``torch.nn.GroupNorm`` refuses ``[1, features]`` although each group has many values.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, features]``."""
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


def vector_norm(kind: NormKind, features: int) -> nn.Module:
    """Normalisation of ``[B, features]``."""
    if kind == "batch":
        return nn.BatchNorm1d(features)
    if kind == "layer":
        return nn.LayerNorm(features)
    return VectorGroupNorm(_groups(features), features)


def map_norm(kind: NormKind, channels: int) -> nn.Module:
    """Normalisation of ``[B, channels, mels, frames]``; ``layer`` takes one mean over the whole map."""
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(1 if kind == "layer" else _groups(channels), channels)


def batch_norms(model: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """All batch normalisations inside a model, in order."""
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]


def _groups(channels: int) -> int:
    """At most 8 groups, of at least 4 channels: a group of one would be normalised to zero."""
    return next(count for count in (8, 4, 2, 1) if count == 1 or channels % (4 * count) == 0)


@contextmanager
def running_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use its running statistics, and leave them as they are, for a while.

    A single utterance has no variance, so a batch of one can be trained on in no other way.
    """
    switched = [norm for norm in batch_norms(model) if norm.training]
    for norm in switched:
        norm.eval()
    try:
        yield
    finally:
        for norm in switched:
            norm.train()
