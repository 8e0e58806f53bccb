"""How a source model is trained; the defaults are the recipe of docs/results.md."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedser.config import Settings

AugmentKind = Literal["noise", "room", "telephone", "mulaw", "gsm", "gain"]


class TrainSettings(Settings):
    """Settings of :func:`fedser.train.train_model`.

    A short, annealed training with strong noise transfers better between corpora than a long one at a constant
    rate, which learns the source by heart. The linear peer is a teacher for the same reason: with few speakers,
    or with speakers whose normalisation has erased their emotion, logistic regression goes less astray.

    Attributes:
        epochs: of the cosine schedule; the early stop can find a smaller number.
        batch_size: utterances a step, at most; a small corpus takes smaller ones, for eight steps an epoch.
        learning_rate: of AdamW, annealed to zero over the epochs by half a cosine.
        pretrained_scale: share of the learning rate that the trained layers of a pretrained encoder get.
        weight_decay: of AdamW.
        input_noise: standard deviation of Gaussian noise on the normalised features.
        mixup: α of Beta(α, α) (Zhang et al. 2018); 0 switches it off.
        label_smoothing: share of the target spread evenly over the classes.
        linear_share: share of the target that logistic regression on the same vectors gives (distillation,
            Hinton et al. 2015); the labels give the rest. No use for spectrograms.
        linear_sharpness: multiplies the teacher's logits, which its strong penalty keeps small.
        class_weights: weigh classes by the inverse of their frequency.
        early_stop: choose the number of epochs by the UAR on held-out speakers, where there are enough.
        patience: epochs without a better UAR after which the validation ends.
        folds: speaker folds of the cross-validation; 1 holds out a fifth of the speakers once (for encoders
            that train slowly), 0 none, with a temperature of 1. None: 5 for the MLP and for frozen pretrained
            encoders, 1 for the others.
        augment: copies of each utterance, one a kind, that are trained on as well.
    """

    epochs: int = Field(default=40, ge=1, le=10_000)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0.0)
    pretrained_scale: float = Field(default=0.02, ge=0.0, le=1.0)
    weight_decay: float = Field(default=1e-2, ge=0.0)
    input_noise: float = Field(default=0.5, ge=0.0)
    mixup: float = Field(default=1.0, ge=0.0)
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    linear_share: float = Field(default=0.9, ge=0.0, le=1.0)
    linear_sharpness: float = Field(default=2.0, gt=0.0)
    class_weights: bool = True
    early_stop: bool = True
    patience: int = Field(default=10, ge=1)
    folds: int | None = Field(default=None, ge=0)
    augment: tuple[AugmentKind, ...] = ()
