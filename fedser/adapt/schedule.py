"""How long and how fast the loop runs."""

from __future__ import annotations

from pydantic import Field

from fedser.config import Settings


class Schedule(Settings):
    """Settings of the loop; the defaults are the field's common skeleton (Liang et al. 2020, SHOT).

    Attributes:
        steps: length in steps; without it ``epochs`` counts.
        epochs: passes over the site's utterances.
        batch_size: utterances a step; a smaller site takes all of them in each step.
        learning_rate: of the first step; step t of T runs at learning_rate · (1 + 10 t/T)^−decay.
        momentum: of Nesterov's method; 0 is plain SGD.
        weight_decay: L2 penalty.
        decay: exponent of the annealing.
        input_noise: standard deviation of Gaussian noise added to the normalised features.
        backbone_scale: the encoder's learning rate as a share of the bottleneck's.
    """

    steps: int | None = Field(default=None, ge=1)
    epochs: int = Field(default=15, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=3e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-3, ge=0)
    decay: float = Field(default=0.75, ge=0)
    input_noise: float = Field(default=0.2, ge=0)
    backbone_scale: float = Field(default=1.0, ge=0)

    def per_epoch(self, utterances: int) -> int:
        """Steps of one epoch: full batches only, so the last incomplete one waits for the next shuffle."""
        return max(1, utterances // self.batch_size)

    def total(self, utterances: int) -> int:
        """Steps of the whole schedule for a site of so many utterances."""
        return self.steps if self.steps is not None else self.epochs * self.per_epoch(utterances)

    def rate(self, progress: float) -> float:
        """Learning rate at ``progress`` = t/T in [0, 1]."""
        return float(self.learning_rate * (1.0 + 10.0 * progress) ** -self.decay)
