"""Predictions moved towards class shares."""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 20  # of the scaling; further ones change less than the fourth digit
LEAST = 1e-8  # a class that can occur is never quite impossible, or nothing could be moved to it


def balance(p: Tensor, aim: Tensor, share: float, rounds: int = ROUNDS) -> Tensor:
    """Scale predictions until their class shares are the ones aimed at (Sinkhorn and Knopp 1967).

    Args:
        p: class probabilities [N, C]; a class that is zero throughout is absent and stays so.
        aim: class shares [C], zero for absent classes.
        share: 0 keeps the predicted shares, 1 goes all the way to ``aim``.
        rounds: of the scaling.

    Returns:
        Probabilities [N, C], rows sum to 1.
    """
    present = p.sum(dim=0) > 0
    wanted = (1 - share) * p.mean(dim=0) + share * aim
    q = torch.where(present, p.clamp_min(LEAST), torch.zeros_like(p))
    for _ in range(rounds):
        q = q * (wanted * len(q) / q.sum(dim=0).clamp_min(LEAST))
        q = q / q.sum(dim=1, keepdim=True)
    return q
