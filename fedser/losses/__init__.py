"""Losses: pure functions of tensors. They know no loop, no bank and no settings."""

from fedser.losses.agreement import agreement, log_agreement, overlap
from fedser.losses.contrastive import neighbour_contrastive, supervised_contrastive
from fedser.losses.distillation import divergence
from fedser.losses.diversity import diversity
from fedser.losses.entropy import mean_entropy

__all__ = [
    "agreement",
    "divergence",
    "diversity",
    "log_agreement",
    "mean_entropy",
    "neighbour_contrastive",
    "overlap",
    "supervised_contrastive",
]
