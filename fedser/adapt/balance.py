"""Predictions moved towards class shares that are likely: between the predicted ones and even ones."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 20  # of Sinkhorn's algorithm; further ones change less than the fourth digit
LEAST = 1e-8  # a class that can occur is never quite impossible, or nothing could be moved to it


def balance(p: Tensor, share: float) -> Tensor:
    """Scale predictions until their class shares are those that we expect (Sinkhorn and Knopp 1967).

    A model that meets other speech than it was trained on answers with some classes far too often. How often they
    really occur is not known, so the shares aimed at lie between the predicted and even ones.

    Args:
        p: class probabilities [N, C]; a class that is zero throughout is absent and stays so.
        share: 0 aims at the predicted shares, which changes nothing; 1 at even ones.

    Returns:
        Probabilities [N, C], rows sum to 1.
    """
    present = p.sum(dim=0) > 0
    even = present.to(p.dtype) / present.sum()
    aim = (1 - share) * p.mean(dim=0) + share * even
    q = torch.where(present, p.clamp_min(LEAST), torch.zeros_like(p))
    for _ in range(ROUNDS):
        q = q * (aim * len(q) / q.sum(dim=0).clamp_min(LEAST))
        q = q / q.sum(dim=1, keepdim=True)
    return q
