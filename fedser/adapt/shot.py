"""SHOT: source hypothesis transfer (Liang et al., ICML 2020, arXiv 2002.08546)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.losses import diversity, mean_entropy


class ShotSettings(Settings):
    """L = mean H(p_i) − H(p̄) + weight · CE(p_i, ŷ_i).

    Attributes:
        pseudo_label_weight: 0.3 in the paper.
    """

    pseudo_label_weight: float = Field(default=0.3, ge=0)


class Shot(Gradient):
    """Confident and diverse predictions, and pseudo-labels of the nearest class centroid, made each epoch."""

    name = "shot"
    settings_type = ShotSettings
    settings: ShotSettings
    schedule: ClassVar[Schedule] = Schedule(learning_rate=1e-2)
    refreshes = True

    def refresh(self, x: Tensor, b: Tensor, p: Tensor, source: Tensor) -> Tensor:
        """Pseudo-labels, int64 [N]."""
        return centroid_labels(b, p)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Information maximisation (the paper's eq. 3) and pseudo-label cross-entropy (eq. 7)."""
        parts = {"entropy_loss": mean_entropy(batch.p), "diversity": diversity(batch.p)}
        if self.settings.pseudo_label_weight and batch.targets is not None:
            guess = functional.cross_entropy(batch.logits, batch.targets)
            parts["pseudo_label"] = self.settings.pseudo_label_weight * guess
        return parts


def centroid_labels(b: Tensor, p: Tensor) -> Tensor:
    """The class of the nearest centroid by cosine, two rounds (the paper's eqs. 4 to 6).

    Centroids are means of features with a constant 1 appended and length 1, weighted by the predictions in
    the first round and by the first round's labels in the second. Classes that no utterance is predicted as
    are left out.

    Args:
        b: bottleneck outputs [N, d].
        p: class probabilities [N, C].

    Returns:
        Labels, int64 [N].
    """
    features = functional.normalize(torch.cat([b, b.new_ones(len(b), 1)], dim=1), dim=1)
    weights, seen = p, functional.one_hot(p.argmax(dim=1), p.shape[1]).bool().any(dim=0)
    for _ in range(2):
        centroids = functional.normalize(weights.T @ features, dim=1)
        labels = (features @ centroids.T).masked_fill(~seen, -torch.inf).argmax(dim=1)
        weights = functional.one_hot(labels, p.shape[1]).to(p.dtype)
        seen = weights.any(dim=0)
    return labels
