"""Agreement and dispersion of predictions: the two terms of AaD (Yang et al. 2022, arXiv 2205.04183)."""

from __future__ import annotations

import torch
from torch import Tensor


def agreement(p: Tensor, scores: Tensor) -> Tensor:
    """Mean over i of Σ_{k∈N_i} S_k·p_i, what AaD attracts by (to be maximised).

    Args:
        p: class probabilities [B, C].
        scores: detached probabilities of each utterance's neighbours [B, K, C].

    Returns:
        A scalar from 0 to K.
    """
    return torch.einsum("bc,bkc->b", p, scores).mean()


def overlap(p: Tensor) -> Tensor:
    """Mean over i of Σ_{j≠i in the batch} p_i·p_j, what AaD disperses (to be minimised).

    The gradient flows through both factors. It grows with the batch: the sum is not divided.

    Args:
        p: class probabilities [B, C].

    Returns:
        A scalar from 0 to B − 1.
    """
    together = p.sum(dim=0)
    return (together @ together - (p * p).sum()) / len(p)
