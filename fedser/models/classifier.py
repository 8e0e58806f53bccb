"""The emotion classifier: encoder → bottleneck → weight-normalised head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fedser.models import encoders
from fedser.models.linear import WeightNormalisedLinear
from fedser.models.norms import running_statistics, vector_norm
from fedser.models.pretrained import PretrainedEncoder
from fedser.models.settings import ModelSettings


class EmotionClassifier(nn.Module):
    """The skeleton of source-free adaptation (Liang et al. 2020, SHOT), for speech.

    Args:
        settings: what the model looks like.
        shape: shape of one utterance's features, see :func:`fedser.models.encoders.build`.
        classes: emotion names, the order of the logits.

    Raises:
        ConfigError: the encoder does not take features of this shape.
        DependencyError: the weights of a pretrained encoder are not on this machine.
    """

    def __init__(self, settings: ModelSettings, shape: tuple[int, ...], classes: Sequence[str]) -> None:
        super().__init__()
        self.settings = settings
        self.shape = tuple(shape)
        self.classes = tuple(classes)
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
            self.encoder = encoders.build(settings, self.shape)
            self.bottleneck = nn.Sequential(
                nn.Linear(self.encoder.outputs, settings.bottleneck),
                vector_norm(settings.norm, settings.bottleneck),
            )
            self.head = WeightNormalisedLinear(settings.bottleneck, len(self.classes))

    def embed(self, x: Tensor) -> Tensor:
        """Bottleneck output [B, bottleneck] of features [B, \\*shape], not normalised to length 1.

        A batch of one in training uses the running statistics of batch normalisation.
        """
        if self.training and len(x) == 1:
            with running_statistics(self):
                return self._embed(x)
        return self._embed(x)

    def _embed(self, x: Tensor) -> Tensor:
        embedded: Tensor = self.bottleneck(self.encoder(x))
        return embedded

    def classify(self, b: Tensor) -> Tensor:
        """Logits [B, C] of bottleneck outputs [B, bottleneck]."""
        logits: Tensor = self.head(b)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of features [B, \\*shape]."""
        return self.classify(self.embed(x))

    def first_layer(self) -> tuple[str, ...]:
        """Names of the parameters that touch the input.

        Their updates carry the inputs themselves: a server that crafts weights could read features out of
        them, so they stay at the site by default.
        """
        layers = encoders.touching_input(self.encoder)
        inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
        return tuple(name for name, parameter in self.named_parameters() if id(parameter) in inside)

    def pretrained_layers(self) -> list[nn.Parameter]:
        """The parameters of the pretrained layers that are trained: they want smaller steps than new ones."""
        return list(self.encoder.trained.parameters()) if isinstance(self.encoder, PretrainedEncoder) else []

    def adaptable(self) -> tuple[str, ...]:
        """Names of all parameters, in order; normalisation statistics are buffers and not among them.

        What is frozen of a pretrained encoder is no parameter: it is never in a bundle nor on the wire.
        """
        return tuple(name for name, _ in self.named_parameters())
