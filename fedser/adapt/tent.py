"""TENT: test entropy minimisation (Wang et al., ICLR 2021, arXiv 2006.10726)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from fedser.adapt.method import Batch, Gradient
from fedser.adapt.schedule import Schedule
from fedser.losses import mean_entropy
from fedser.models import EmotionClassifier

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm)


class Tent(Gradient):
    """L = mean H(p_i), over the scales and shifts of the normalisation layers alone.

    Batch normalisation takes the batch's statistics meanwhile, and its running ones become the target's. The
    paper steps once a batch, as utterances come in, without weight decay; the epochs and the rate are ours, the
    same as SHOT's. Nothing keeps the predictions apart: on few or unbalanced utterances they can fall into one
    class.
    """

    name = "tent"
    schedule: ClassVar[Schedule] = Schedule(learning_rate=1e-2, weight_decay=0.0)

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """Names of the affine parameters of batch, layer and group normalisation."""
        affine = {
            f"{place}.{name}"
            for place, module in model.named_modules()
            if isinstance(module, NORMS)
            for name, _ in module.named_parameters(recurse=False)
        }
        return tuple(name for name in model.adaptable() if name in affine)

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """Mean entropy of the predictions."""
        return {"entropy_loss": mean_entropy(batch.p)}
