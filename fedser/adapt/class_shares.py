"""Which shares of the emotions a site may have, and predictions moved towards them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

ROUNDS = 20  # of the scaling; further ones change less than the fourth digit
LEAST = 1e-8  # a class that can occur is never quite impossible, or nothing could be moved to it


@dataclass(frozen=True)
class ClassShares:
    """What is expected of a site.

    Attributes:
        shares: of the classes, [C], sum to 1; zero for absent classes.
        evenness: how far even shares are believed, from 0 to 1.
    """

    shares: Tensor
    evenness: float


def expected_shares(p: Tensor, even: float, uneven: float) -> ClassShares:
    """Judge by the published model's answers whether a site's emotions are about as frequent as each other.

    Its answers are biased on foreign speech: a class that it hardly ever answers with may be as frequent as any. So
    shares are taken as even where the answers lie at most ``even`` from even ones, as counted (each class once more
    than seen) from ``uneven`` on, and in proportion between. The distance is the Kullback-Leibler divergence, log of
    the number of classes less the entropy.

    Args:
        p: its class probabilities [N, C]; a class that is zero throughout is absent.
        even, uneven: distances in nats, the first below the second.
    """
    present = (p.sum(dim=0) > 0).to(p.dtype)
    classes = present.sum()
    counts = (functional.one_hot(p.argmax(dim=1), p.shape[1]).sum(dim=0) + 1) * present
    counted = counts / counts.sum()
    if classes < 2:
        return ClassShares(counted, 1.0)
    distance = float(classes.log() + torch.special.xlogy(counted, counted).sum())
    evenness = min(max((uneven - distance) / (uneven - even), 0.0), 1.0)
    return ClassShares(evenness * present / classes + (1 - evenness) * counted, evenness)


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
