"""Contrastive losses over cosine similarities: neighbours in a bank, and classes of pseudo-labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def neighbour_contrastive(
    f: Tensor,
    neighbours: Tensor,
    bank: Tensor,
    own: Tensor,
    temperature: float,
    denominator: Literal["bank", "batch"] = "bank",
) -> Tensor:
    """Nearest-neighbour contrastive loss of ECAN (Zhao et al. 2024, arXiv 2401.12925).

    −mean_i (1/M) Σ_{j∈N_i} log[ exp(f_i·F_j/τ) / Σ_{k≠i} exp(f_i·F_k/τ) ], where k runs over the whole bank
    or over the batch's own rows of it. The gradient flows through f alone. With ``batch`` an utterance
    without another one in its batch has no denominator and adds nothing.

    Args:
        f: features of the batch, of length 1, [B, d].
        neighbours: rows of the bank that are i's neighbours (never i's own), int64 [B, M].
        bank: detached features of all utterances, of length 1, [N, d].
        own: the batch's own rows in the bank, int64 [B].
        temperature: τ > 0.
        denominator: ``bank`` or ``batch``.

    Returns:
        A scalar.
    """
    similarity = f @ bank.T / temperature
    attracted = similarity.gather(1, neighbours).mean(dim=1)
    if denominator == "bank":
        others = similarity.scatter(1, own.unsqueeze(1), torch.finfo(f.dtype).min)
        return (others.logsumexp(dim=1) - attracted).mean()
    if len(f) < 2:
        return 0.0 * f.sum()
    others = _without_diagonal(similarity[:, own])
    return (others.logsumexp(dim=1) - attracted).mean()


def supervised_contrastive(f: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, eq. 2), as ECAN uses it on pseudo-labels.

    Mean over the i that share their label with another one of the batch, P_i, of
    −(1/|P_i|) Σ_{a∈P_i} log[ exp(f_i·f_a/τ) / Σ_{b≠i} exp(f_i·f_b/τ) ]; zero if there is no such i.

    Args:
        f: features of the batch, of length 1, [B, d]; the gradient flows through both factors.
        labels: int64 [B].
        temperature: τ > 0.

    Returns:
        A scalar.
    """
    similarity = _without_diagonal(f @ f.T / temperature)
    positive = labels.unsqueeze(0) == labels.unsqueeze(1)
    positive = positive & ~torch.eye(len(f), dtype=torch.bool, device=f.device)
    count = positive.sum(dim=1)
    log_ratio = similarity.log_softmax(dim=1).masked_fill(~positive, 0.0)
    each = -log_ratio.sum(dim=1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


def _without_diagonal(similarity: Tensor) -> Tensor:
    """Leave i out of its log-sum-exp: the lowest number vanishes there and, unlike −∞, gives no NaN."""
    diagonal = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    return similarity.masked_fill(diagonal, torch.finfo(similarity.dtype).min)
