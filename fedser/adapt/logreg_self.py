"""The plain peer, self-trained: logistic regression refitted on its own confident pseudo-labels."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from fedser.adapt.logreg import published
from fedser.adapt.method import Direct, Target
from fedser.adapt.probabilities import probabilities
from fedser.config import Settings
from fedser.models import EmotionClassifier, fit_logistic


class LogregSelfSettings(Settings):
    """Rounds and penalty; there is no threshold to set.

    Attributes:
        rounds: refits; round r of R takes the share r/R of each predicted class, so the last takes all.
        penalty: scikit-learn's C, inverse strength of the L2 penalty, the same as the provider's.
    """

    rounds: int = Field(default=5, ge=1, le=100)
    penalty: float = Field(default=0.01, gt=0)


class LogregSelf(Direct):
    """Self-training (Yarowsky 1995) from the published linear weights, without any source data.

    In each round the most confident utterances of each predicted class are its pseudo-labels, and balanced
    logistic regression on them takes the model's place. Taking a share of each class, rather than all above
    one threshold, keeps a class that the source is unsure of; confidence is the margin between the two best
    classes.
    """

    name = "logreg_self"
    settings_type = LogregSelfSettings
    settings: LogregSelfSettings
    minimum: ClassVar[int] = 2

    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """Refit ``rounds`` times; where only one class is predicted there is nothing to tell apart: stop."""
        linear = published(target)
        for turn in range(1, self.settings.rounds + 1):
            p = probabilities(linear, target.x, class_mask=target.class_mask)
            chosen = confident(p, turn / self.settings.rounds)
            labels = p[chosen].argmax(dim=1)
            if int(labels.min()) == int(labels.max()):
                break
            linear = fit_logistic(target.x[chosen].double(), labels, linear.classes, self.settings.penalty)
            linear = linear.to(target.x.device)
        return linear


def confident(p: Tensor, share: float) -> Tensor:
    """Rows of the most confident predictions of each predicted class.

    Args:
        p: class probabilities [N, C] with C ≥ 1.
        share: of each predicted class, in (0, 1]; at least one utterance of each.

    Returns:
        Rows, int64, ascending.
    """
    best = p.topk(min(2, p.shape[1]), dim=1)
    margin = best.values[:, 0] - best.values[:, -1]
    predicted = best.indices[:, 0]
    kept = []
    for label in torch.unique(predicted):
        rows = (predicted == label).nonzero().squeeze(1)
        order = margin[rows].argsort(descending=True, stable=True)
        kept.append(rows[order[: math.ceil(share * len(rows))]])
    return torch.cat(kept).sort().values
