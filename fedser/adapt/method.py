"""What a method is: either one pass over the site's data, or a loss for the one loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from fedser.adapt.bank import Bank
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.models import EmotionClassifier, LinearClassifier


@dataclass(frozen=True)
class Target:
    """A whole site as a method sees it: unlabelled.

    Attributes:
        x: normalised features [N, \\*shape].
        class_mask: bool [C], true for the classes that can occur; None means all.
        linear: the provider's logistic regression, where the bundle has one.
        seed: for methods that draw.
    """

    x: Tensor
    class_mask: Tensor | None
    linear: LinearClassifier | None
    seed: int


@dataclass(frozen=True)
class Batch:
    """One step of the loop. The bank already holds this batch.

    Attributes:
        index: rows of the site's utterances, int64 [B].
        b: bottleneck outputs [B, d].
        f: b at length 1, [B, d].
        p: class probabilities [B, C], zero for masked classes.
        logits: [B, C], very negative for masked classes.
        bank: detached f and p of all utterances.
        targets: the batch's rows of what ``refresh`` returned, or None.
        progress: t/T of the whole schedule, in [0, 1).
    """

    index: Tensor
    b: Tensor
    f: Tensor
    p: Tensor
    logits: Tensor
    bank: Bank
    targets: Tensor | None
    progress: float


class Method(ABC):
    """Base of all methods; a new one derives from :class:`Direct` or :class:`Gradient`.

    Attributes:
        name: the row of the tables, and the word on the command line.
        settings_type: the method's own settings.
        minimum: utterances without which the method makes no sense.
        settings: this instance's settings, of ``settings_type``.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Settings]] = Settings
    minimum: ClassVar[int] = 1
    settings: Settings

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


class Direct(Method):
    """A method without gradient steps."""

    @abstractmethod
    def solve(self, model: EmotionClassifier, target: Target) -> nn.Module:
        """The adapted classifier of features [B, \\*shape]; ``model`` is a copy that may be changed."""


class Gradient(Method):
    """A method that is a loss: the loop of :mod:`fedser.adapt.loop` does the rest.

    Attributes:
        schedule: the schedule it is run with unless the user asks for another.
        refreshes: whether ``refresh`` is called at the beginning of each epoch.
    """

    schedule: ClassVar[Schedule] = Schedule()
    refreshes: ClassVar[bool] = False
    minimum: ClassVar[int] = 2

    def trainable(self, model: EmotionClassifier) -> tuple[str, ...]:
        """Names of the parameters to adapt: by default all but the classifier head."""
        return tuple(name for name in model.adaptable() if not name.startswith("head."))

    def refresh(self, x: Tensor, b: Tensor, p: Tensor, source: Tensor) -> Tensor:
        """Per-utterance targets [N, …] from a full pass; see ``Batch.targets``.

        Args:
            x: normalised features [N, \\*shape].
            b: their bottleneck outputs [N, d].
            p: their class probabilities [N, C].
            source: what the model that came in, and the linear peer where there is one, said of them [N, C].
        """
        raise TypeError(f"{type(self).__name__} sets refreshes but has no refresh")

    def conclude(self, model: EmotionClassifier, target: Target, published: Tensor) -> nn.Module:
        """What follows the last step, at the site alone: by default nothing.

        Args:
            model: the adapted classifier.
            target: the site.
            published: what the published network, and the linear peer where there is one, say of it [N, C].
        """
        return model

    @abstractmethod
    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The loss' weighted parts by name, scalars; the loop minimises their sum."""
