"""The plain peer: the provider's multinomial logistic regression, as published."""

from __future__ import annotations

import copy

from torch import nn

from fedser.adapt.method import Direct, Target
from fedser.errors import UsageError
from fedser.models import EmotionClassifier, LinearClassifier


def published(target: Target) -> LinearClassifier:
    """A copy of the provider's linear classifier on the target's device.

    Raises:
        UsageError: the bundle has none, or it takes other features.
    """
    linear = target.linear
    if linear is None:
        raise UsageError(
            "The bundle has no logistic regression, which this method starts from.",
            "Train the bundle on functionals, or choose another method.",
        )
    if target.x.shape[1:] != linear.weight.shape[1:]:
        raise UsageError(
            f"The logistic regression takes features of shape {tuple(linear.weight.shape[1:])}, "
            f"not {tuple(target.x.shape[1:])}.",
            "Use the features of the bundle.",
        )
    return copy.deepcopy(linear).to(target.x.device)


class Logreg(Direct):
    """Logistic regression on the normalised features; the network is not used."""

    name = "logreg"

    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """The published weights."""
        return published(target)
