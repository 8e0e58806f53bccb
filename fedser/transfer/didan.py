"""DIDAN: implicit distribution alignment (Zhao et al., ICASSP 2023, arXiv 2302.08921)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from fedser.config import Settings
from fedser.transfer.reference import Batch, Reference


class DidanSettings(Settings):
    """λ [ mean_j ‖z_t,j − Σ_i w_ij z_s,i‖² + τ mean_j ‖w_j‖₁ ], z = b / √d.

    Attributes:
        weight: λ.
        sparsity: τ. With z = b / √d a source feature whose product with the target's is below τ/2 has no weight.
        steps: proximal steps for w, which no gradient flows through.
    """

    weight: float = Field(default=5.0, ge=0)
    sparsity: float = Field(default=0.1, ge=0)
    steps: int = Field(default=20, ge=1)


class Didan(Reference):
    """Each target feature is a sparse sum of the batch's source features."""

    name = "didan"
    settings_type = DidanSettings
    settings: DidanSettings

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the sparse reconstruction leaves over."""
        scale = 1 / math.sqrt(batch.source.b.shape[1])  # so that τ means the same at any width
        source, target = scale * batch.source.b, scale * batch.target.b
        weights = sparse_weights(source.detach(), target.detach(), self.settings.sparsity, self.settings.steps)
        left, size = reconstruction(source, target, weights)
        return {
            "reconstruction": self.settings.weight * left,
            "sparsity": self.settings.weight * self.settings.sparsity * size,
        }


def reconstruction(source: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """mean_j ‖z_t,j − Σ_i w_ji z_s,i‖² and mean_j ‖w_j‖₁, for z [B, d], [B', d] and w [B', B]."""
    left = target - weights @ source
    return left.square().sum(dim=1).mean(), weights.abs().sum(dim=1).mean()


@torch.no_grad()
def sparse_weights(source: Tensor, target: Tensor, sparsity: float, steps: int) -> Tensor:
    """w [B', B] that minimises ‖z_t,j − Σ_i w_ji z_s,i‖² + τ ‖w_j‖₁ in each row, by accelerated proximal steps.

    Iterative shrinkage with momentum (Beck and Teboulle 2009, FISTA, eq. 4.1 to 4.3), in steps of 1/L, L = 2 ‖Z_s‖².

    Args:
        source: features z_s [B, d].
        target: features z_t [B', d].
        sparsity: τ ≥ 0.
        steps: how many.
    """
    gram, products = source @ source.T, target @ source.T
    smoothness = 2 * float(torch.linalg.eigvalsh(gram)[-1])
    weights = torch.zeros_like(products)
    if smoothness <= 0:  # no source feature, nothing to reconstruct from
        return weights
    ahead, pace = weights, 1.0
    for _ in range(steps):
        gradient = 2 * (ahead @ gram - products)
        new = functional.softshrink(ahead - gradient / smoothness, sparsity / smoothness)
        faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = new + (pace - 1) / faster * (new - weights)
        weights, pace = new, faster
    return weights
