"""Losses: pure functions of tensors. They know no loop, no bank and no settings."""

from fedser.losses.contrastive import neighbour_contrastive, supervised_contrastive
from fedser.losses.diversity import diversity

__all__ = ["diversity", "neighbour_contrastive", "supervised_contrastive"]
