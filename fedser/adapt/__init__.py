"""Source-free adaptation: one loop, one bank, and one short file for each method."""

from fedser.adapt.bank import Bank
from fedser.adapt.loop import Adapted, adapt, conclude
from fedser.adapt.method import Batch, Direct, Gradient, Method, Target
from fedser.adapt.methods import METHODS, make
from fedser.adapt.probabilities import probabilities
from fedser.adapt.schedule import Schedule

__all__ = [
    "METHODS",
    "Adapted",
    "Bank",
    "Batch",
    "Direct",
    "Gradient",
    "Method",
    "Schedule",
    "Target",
    "adapt",
    "conclude",
    "make",
    "probabilities",
]
