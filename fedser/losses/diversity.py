"""Diversity of predictions: keeps a batch from collapsing to one class."""

from __future__ import annotations

import torch
from torch import Tensor


def diversity(p: Tensor) -> Tensor:
    """Negative entropy of the mean prediction, Σ_c p̄_c log p̄_c (Liang et al. 2020, SHOT, eq. 3).

    Args:
        p: class probabilities [B, C]; absent classes may be exactly zero.

    Returns:
        A scalar from −log C (uniform) to 0 (one class only).
    """
    mean = p.mean(dim=0)
    # An absent class adds nothing; the inner `where` keeps the gradient of log at 0 out of the product.
    return (mean * torch.where(mean > 0, mean, torch.ones_like(mean)).log()).sum()
