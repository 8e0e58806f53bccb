"""What a model looks like: plain values that travel in a bundle's header."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedser.config import Settings


class ModelSettings(Settings):
    """Settings of :class:`fedser.models.EmotionClassifier`.

    Attributes:
        encoder: ``mlp`` for one vector per utterance (functionals), ``vgg11`` or ``resnet`` for log-mel.
        norm: ``batch``, or ``layer`` or ``group``, which treat each utterance alone and so suit
            differentially private training.
        hidden: units of each hidden layer of the MLP.
        depth: hidden layers of the MLP.
        bottleneck: width of the bottleneck, the space of neighbours and prototypes.
        dropout: share of units dropped in training.
        width: channels of the first convolution of VGG-11; the residual net starts with half of them.
    """

    encoder: Literal["mlp", "vgg11", "resnet"] = "mlp"
    norm: Literal["batch", "layer", "group"] = "batch"
    hidden: int = Field(default=256, ge=1, le=8192)
    depth: int = Field(default=2, ge=1, le=16)
    bottleneck: int = Field(default=128, ge=1, le=4096)
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    width: int = Field(default=64, ge=2, le=256)
