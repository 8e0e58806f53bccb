"""DINE: distil and fine-tune from a black box (Liang et al., CVPR 2022, arXiv 2104.01539)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from fedser.adapt.distil import DistilSettings, distil
from fedser.adapt.method import Direct, Target
from fedser.adapt.probabilities import probabilities
from fedser.models import EmotionClassifier


class Dine(Direct):
    """A new network learns from what the source model answers, and from nothing else of it.

    The provider's weights are used for one thing, one answer to each utterance, which a remote service could
    give as well. The student has the bundle's architecture and weights drawn from the seed, all of which are
    trained; so nothing of it could be joined with other sites' models, and it is no method for a federation.
    The authors' second phase, which goes on with mean H(p_i) − H(p̄) alone, is left out.
    """

    name = "dine"
    settings_type = DistilSettings
    settings: DistilSettings
    minimum: ClassVar[int] = 2

    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """Ask the source model once, then train a new network on its answers.

        Raises:
            ConfigError: the weights became infinite.
        """
        answers = probabilities(model, target.x, class_mask=target.class_mask)
        return distil(model, answers, target.x, target.class_mask, target.seed, self.settings)
