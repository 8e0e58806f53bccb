"""Distillation: learning from another model's predictions."""

from __future__ import annotations

import torch
from torch import Tensor


def divergence(teacher: Tensor, logits: Tensor) -> Tensor:
    """Mean KL(teacher_i ‖ p_i) with p = softmax(logits), in nats (Liang et al. 2022, DINE, eq. 2).

    Args:
        teacher: class probabilities [B, C]; no gradient flows through them, absent classes may be exactly zero.
        logits: [B, C], very negative for masked classes, to which the teacher gives zero.

    Returns:
        A scalar from 0 (equal).
    """
    teacher = teacher.detach()
    own: Tensor = torch.special.xlogy(teacher, teacher)
    return (own - teacher * logits.log_softmax(dim=1)).sum(dim=1).mean()
