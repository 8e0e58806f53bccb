"""Encoders for functionals and log-mel spectrograms, and the emotion classifier built on them."""

from fedser.models.classifier import EmotionClassifier
from fedser.models.initialise import initialise
from fedser.models.linear import LinearClassifier, WeightNormalisedLinear
from fedser.models.logistic import fit_logistic
from fedser.models.settings import ModelSettings

__all__ = [
    "EmotionClassifier",
    "LinearClassifier",
    "ModelSettings",
    "WeightNormalisedLinear",
    "fit_logistic",
    "initialise",
]
