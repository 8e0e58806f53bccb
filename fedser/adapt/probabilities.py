"""Full passes over a site's utterances without gradients, and the mask of absent classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedser.models import EmotionClassifier

BATCH = 256
ABSENT = -1e9  # a logit whose softmax is exactly zero and which, unlike −∞, gives no NaN


def mask_logits(logits: Tensor, class_mask: Tensor | None) -> Tensor:
    """Logits [B, C] where the classes that the site does not have (mask [C] false) can't be chosen."""
    return logits if class_mask is None else logits.masked_fill(~class_mask, ABSENT)


@torch.no_grad()
def probabilities(model: nn.Module, x: Tensor, temperature: float = 1.0, class_mask: Tensor | None = None) -> Tensor:
    """Class probabilities of utterances, with running statistics and without dropout.

    Args:
        model: maps features [B, \\*shape] to logits [B, C]; its mode is left as it was.
        x: normalised features [N, \\*shape], on the model's device.
        temperature: divides the logits (calibration).
        class_mask: bool [C], true for the classes that can occur.

    Returns:
        [N, C], rows sum to 1, exact zeros for masked classes.
    """
    training = model.training
    model.eval()
    logits = torch.cat([model(part) for part in torch.split(x, BATCH)])
    model.train(training)
    return (mask_logits(logits, class_mask) / temperature).softmax(dim=1)


@torch.no_grad()
def outputs(model: EmotionClassifier, x: Tensor, class_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Bottleneck outputs b [N, d] and probabilities p [N, C], with running statistics, without dropout."""
    training = model.training
    model.eval()
    b = torch.cat([model.embed(part) for part in torch.split(x, BATCH)])
    p = mask_logits(model.classify(b), class_mask).softmax(dim=1)
    model.train(training)
    return b, p
