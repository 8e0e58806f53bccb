"""What a source-available reference is: a loss over source and target utterances, and what it learns beside."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fedser.config import Settings
from fedser.models import EmotionClassifier


@dataclass(frozen=True)
class Part:
    """One corpus' utterances of a step, as the network sees them; gradients flow through all three.

    Attributes:
        encoded: the encoder's outputs [B, width].
        b: bottleneck outputs [B, d].
        logits: [B, C].
    """

    encoded: Tensor
    b: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Batch:
    """One step of the loop.

    Attributes:
        source: the labelled utterances of the step.
        target: the unlabelled ones.
        y: class numbers of the source utterances [B].
        progress: t/T of the training, in [0, 1).
    """

    source: Part
    target: Part
    y: Tensor
    progress: float


class Reference(nn.Module, ABC):
    """Base of the references. Its own layers are trained beside the network and thrown away afterwards.

    Attributes:
        name: the row of the tables.
        settings_type: the reference's settings.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: Settings, model: EmotionClassifier) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The weighted parts by name, scalars; the loop adds them to the loss of the source's labels."""
