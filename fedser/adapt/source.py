"""No adaptation: the source model as published, the row that every method is measured against."""

from __future__ import annotations

from torch import nn

from fedser.adapt.method import Direct, Target
from fedser.models import EmotionClassifier


class Source(Direct):
    """Leaves the model as it is."""

    name = "source"

    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """The model itself."""
        return model
