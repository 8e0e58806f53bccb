"""Adam as the server's step."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedser.federation.stages import ServerStage, ServerState, ServerWork


def adam_update(momentum: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-3, rate: float = 0.01) -> ServerStage:
    """Move the tensors by m / (√v + τ): m ← β1·m + (1 − β1)·Δ, v ← β2·v + (1 − β2)·Δ².

    FedAdam, Reddi et al. 2021, "Adaptive federated optimization", algorithm 2: m starts at 0, v at τ², and neither
    is corrected for its start.

    Args:
        momentum: β1.
        beta2: β2.
        epsilon: τ.
        rate: η, the step in weights.
    """

    def stage(work: ServerWork) -> ServerWork:
        first, second = work.state.velocity, work.state.second
        first = torch.zeros_like(work.joint) if first is None else first
        second = torch.full_like(work.joint, epsilon**2) if second is None else second
        first = momentum * first + (1 - momentum) * work.joint
        second = beta2 * second + (1 - beta2) * work.joint.square()
        tensors = work.tensors + rate * first / (second.sqrt() + epsilon)
        return replace(work, tensors=tensors, state=ServerState(first, second))

    return stage
