"""The joint network as a student: it learns what each site's own network answers, and never was any of them.

Averaged weights of networks that adapted apart bring little: each found its neighbours and pseudo-labels among its
own few speakers, and the average keeps their errors. Here each site adapts a network of its own, which stays there,
and teaches it to a second one, which travels (two networks a site, one of them shared: federated mutual learning,
Shen et al. 2020, arXiv 2006.16765; the loss is DINE's, Liang et al., CVPR 2022, arXiv 2104.01539):

1. At its first order a site adapts its own network by the study's method, from the published weights, in full.
2. In each round the joint network takes some steps towards the own network's answers, and its change travels.
3. The joint network is the site's final model, with the site's own normalisation statistics.

The joint network sees the answers of all sites' networks, for speech that none of them saw; what one of them found in
its own speakers' voices alone, it cannot repeat for everybody.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedser.adapt import Method, probabilities
from fedser.adapt.distil import DistilSettings, follow
from fedser.adapt.method import Gradient
from fedser.config import Settings
from fedser.federation.schema import StudentWork
from fedser.models import EmotionClassifier


class StudentSettings(Settings):
    """A joint network that learns from each site's own one.

    Attributes:
        steps: of the joint network at each site, over all rounds; 0 lets the sites' networks themselves travel.
        learning_rate: of its first step.
    """

    steps: int = Field(default=0, ge=0, le=100_000)
    learning_rate: float = Field(default=0.02, gt=0, le=10)

    def shared(self, steps: int) -> int:
        """The steps that the rounds share out: the student's, or without one those of the method."""
        return self.steps or steps

    def work(self, start: int, steps: int) -> StudentWork:
        """What an order says of it."""
        return StudentWork(start=start, steps=steps, total=self.steps, learning_rate=self.learning_rate)


def learn(
    student: EmotionClassifier,
    teacher: EmotionClassifier,
    x: Tensor,
    work: StudentWork,
    method: Method,
    *,
    seed: int,
    class_mask: Tensor | None = None,
    frozen: frozenset[str] = frozenset(),
) -> float:
    """Some steps of the student towards the teacher's answers, in place.

    Args:
        student: the joint network as it came.
        teacher: the site's own network.
        x: normalised features [N, \\*shape].
        work: which steps.
        method: the study's; what it leaves alone (the head, mostly) stays as published in the student too.
        seed: of shuffling, noise, dropout and mixtures.
        class_mask: bool [C], true for the classes that can occur; None means all.
        frozen: names of further parameters that stay as they are.

    Returns:
        The mean loss.

    Raises:
        ConfigError: the weights became infinite.
        UsageError: no parameter is left to train.
    """
    answers = probabilities(teacher, x, class_mask=class_mask)
    trained = set(method.trainable(student)) if isinstance(method, Gradient) else set()
    return follow(
        student,
        lambda _step: answers,
        x,
        class_mask,
        seed,
        DistilSettings(steps=work.total, learning_rate=work.learning_rate),
        frozen=(set(student.adaptable()) - trained) | frozen,
        start=work.start,
        steps=work.steps,
    )
