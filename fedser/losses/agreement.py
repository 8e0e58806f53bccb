"""Agreement of predictions with those of neighbours (G-SFDA, NRC, AaD), and their dispersion (AaD)."""

from __future__ import annotations

import torch
from torch import Tensor


def agreement(p: Tensor, scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean over i of Σ_{k∈N_i} A_ik S_k·p_i (to be maximised).

    With A = 1 what AaD attracts by (Yang et al. 2022, arXiv 2205.04183); with affinities NRC's neighbour term
    (Yang et al. 2021, arXiv 2110.04202).

    Args:
        p: class probabilities [B, C].
        scores: detached probabilities of each utterance's neighbours [B, K, C].
        weights: affinities A [B, K]; 1 when None.

    Returns:
        A scalar from 0 to K times the largest affinity.
    """
    shared = torch.einsum("bc,bkc->bk", p, scores)
    return (shared if weights is None else weights * shared).sum(dim=1).mean()


def log_agreement(logits: Tensor, scores: Tensor) -> Tensor:
    """Mean over i of Σ_{k∈N_i} log(p_i·S_k), G-SFDA's local clustering (Yang et al. 2021, arXiv 2108.01614).

    Taken in the log domain: a prediction that contradicts a neighbour would round p_i·S_k to 0 and its log to −∞.

    Args:
        logits: [B, C], very negative for masked classes.
        scores: detached probabilities of each utterance's neighbours [B, K, C]; absent classes may be zero.

    Returns:
        A scalar of at most 0.
    """
    both = logits.log_softmax(dim=1).unsqueeze(1) + scores.log()
    return both.logsumexp(dim=2).sum(dim=1).mean()


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
