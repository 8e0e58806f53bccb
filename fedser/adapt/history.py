"""Curves of an adaptation, collected without waiting for the device in each step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class History:
    """Mean loss, loss parts and prediction entropy of each epoch; nothing here needs labels."""

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        self._values: dict[int, dict[str, list[Tensor]]] = {}

    def add(self, epoch: int, step: int, loss: Tensor, parts: Mapping[str, Tensor], p: Tensor) -> None:
        """Take in one step: the loss, its parts, and the batch's probabilities p [B, C]."""
        self._last[epoch] = step
        values = self._values.setdefault(epoch, {})
        entropy = -torch.special.xlogy(p.detach(), p.detach()).sum(dim=1).mean()
        for name, value in {"loss": loss, **parts, "entropy": entropy}.items():
            values.setdefault(name, []).append(value.detach())

    def entries(self) -> list[dict[str, float]]:
        """One entry an epoch: ``epoch``, ``step`` (its last), ``loss``, the parts, ``entropy`` (nats)."""
        return [
            {"epoch": float(epoch), "step": float(self._last[epoch])}
            | {name: float(torch.stack(series).mean()) for name, series in values.items()}
            for epoch, values in self._values.items()
        ]
