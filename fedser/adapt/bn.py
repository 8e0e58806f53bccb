"""BN statistics: the target's own normalisation statistics in the source network; no weight moves."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from fedser import compute
from fedser.adapt.method import Direct, Target
from fedser.models import EmotionClassifier
from fedser.models.norms import batch_norms

BATCH = 256


class Bn(Direct):
    """Recompute the running statistics of every batch normalisation on the target alone.

    Known as AdaBN (Li et al. 2016, arXiv 1603.04779). A model with layer or group normalisation has no such
    statistics: for it this is the source model.
    """

    name = "bn"
    minimum: ClassVar[int] = 2

    @torch.no_grad()
    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """One pass over all utterances, shuffled, in equal batches of at most 256, all of equal weight."""
        model.eval()  # dropout stays off: it would widen the statistics
        norms = batch_norms(model)
        momentum = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over batches
            norm.train()
        if norms:
            order = torch.randperm(len(target.x), generator=compute.generator("bn", target.seed))
            for rows in order.tensor_split(math.ceil(len(order) / BATCH)):
                model.embed(target.x[rows.to(target.x.device)])
        for norm, before in zip(norms, momentum, strict=True):
            norm.momentum = before
        return model.eval()
