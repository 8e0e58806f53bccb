"""Source training: labelled corpora to a classifier, its linear peer and a bundle."""

from fedser.train.linear import fit_linear
from fedser.train.model import Trained, train_model
from fedser.train.settings import TrainSettings
from fedser.train.source import train_bundle

__all__ = ["TrainSettings", "Trained", "fit_linear", "train_bundle", "train_model"]
