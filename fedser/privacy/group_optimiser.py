"""Opacus' optimiser for groups: public normaliser, and noise from the operating system."""

from __future__ import annotations

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from fedser.privacy.randomness import gaussian

#: Share by which a gradient is cut shorter than its radius. Gradients and the sums of at most 64 of them come in
#: float32, whose rounding depends on which other groups are there: by at most 64 · 2⁻²⁴ of the lengths added up
#: (Higham 2002, eq. 3.5), so 1 % covers more than a thousand groups a step.
MARGIN = 1e-2
TOGETHER = 64  # groups that are added up in float32


class GroupOptimiser(DPOptimizer):  # type: ignore[misc]  # opacus has no types
    """DP-SGD (Abadi et al. 2016, algorithm 1) over groups: ``grad_sample`` holds one gradient a group.

    A group whose gradient is not finite counts as zero, which is decided inside the group.

    Args:
        optimiser: the plain one, which makes the step.
        radius: L2 norm to which a group's gradient is cut.
        std: standard deviation of the noise on each value of the sum.
        normaliser: the public number that the noised sum is divided by; never the number of groups drawn.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, *, radius: float, std: float, normaliser: float) -> None:
        super().__init__(
            optimiser,
            noise_multiplier=std / radius,
            max_grad_norm=radius,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._std = std
        self._normaliser = normaliser
        self.begin()

    def begin(self) -> None:
        """Forget the step before: the sum is zero, and stays it where no group is drawn."""
        self.zero_grad()
        for parameter in self.params:
            parameter.summed_grad = torch.zeros_like(parameter, dtype=torch.float64)

    def clip_and_accumulate(self) -> None:
        """Cut each group's gradient to the radius, and add them to the step's sum in float64."""
        samples = [each.flatten(1) for each in self.grad_samples]
        length = torch.stack([torch.linalg.vector_norm(each, dim=1).double() for each in samples]).norm(dim=0)
        whole = length.isfinite()
        if not bool(whole.all()):
            samples = [each.masked_fill(~whole[:, None], 0.0) for each in samples]
            length = length.masked_fill(~whole, 0.0)
        limit = (1 - MARGIN) * self.max_grad_norm
        factor = (limit / length.clamp_min(limit)).to(samples[0].dtype)
        for parameter, each in zip(self.params, samples, strict=True):
            parts = zip(factor.split(TOGETHER), each.split(TOGETHER), strict=True)
            summed = sum((f @ g for f, g in parts), parameter.summed_grad.flatten())
            parameter.summed_grad = summed.view(parameter.shape)

    def add_noise(self) -> None:
        """Noise from the operating system's source on the sum, divided by the public normaliser."""
        summed = self.clipped_sum()
        noisy = (summed + torch.from_numpy(gaussian(len(summed), self._std)).to(summed.device)) / self._normaliser
        parts = torch.split(noisy, [parameter.numel() for parameter in self.params])
        for parameter, part in zip(self.params, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)

    def clipped_sum(self) -> Tensor:
        """What the noise is added to, flat float64 [P]; empty groups of parameters count as zeros."""
        return torch.cat([parameter.summed_grad.flatten() for parameter in self.params])
