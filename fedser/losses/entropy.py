"""Entropy of single predictions."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_entropy(p: Tensor) -> Tensor:
    """Mean entropy of the predictions, −mean_i Σ_c p_ic log p_ic, in nats (Liang et al. 2020, SHOT, eq. 3).

    Args:
        p: class probabilities [B, C]; masked classes may be exactly zero.

    Returns:
        A scalar from 0 to log C.
    """
    safe = torch.where(p > 0, p, torch.ones_like(p))  # an absent class adds nothing, nor to the gradient
    return -(p * safe.log()).sum(dim=1).mean()
