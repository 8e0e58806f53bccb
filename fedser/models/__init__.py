"""Encoders for functionals, log-mel spectrograms and pretrained layers, and the emotion classifier built on them."""

from fedser.models.classifier import EmotionClassifier
from fedser.models.initialise import initialise
from fedser.models.linear import LinearClassifier, WeightNormalisedLinear
from fedser.models.logistic import fit_logistic
from fedser.models.resolve import features_for, resolve
from fedser.models.settings import ModelSettings

__all__ = [
    "EmotionClassifier",
    "LinearClassifier",
    "ModelSettings",
    "WeightNormalisedLinear",
    "features_for",
    "fit_logistic",
    "initialise",
    "resolve",
]
