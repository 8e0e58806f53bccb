"""Linear layers: the weight-normalised head, and logistic regression as a model of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class WeightNormalisedLinear(nn.Module):
    """Linear layer whose rows are a direction times a magnitude (Salimans and Kingma 2016, eq. 2).

    Own and small rather than ``torch.nn.utils.parametrizations.weight_norm``: three plain names in the state
    dict (``direction`` [C, D], ``magnitude`` [C, 1], ``bias`` [C]) and nothing that has to be unwrapped.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(outputs, inputs))
        self.magnitude = nn.Parameter(torch.ones(outputs, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def weight(self) -> Tensor:
        """The effective weight [C, D]: each row has the length of its magnitude."""
        return self.magnitude * functional.normalize(self.direction, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of ``[B, D]``."""
        return functional.linear(x, self.weight(), self.bias)


class LinearClassifier(nn.Module):
    """Multinomial logistic regression on the normalised functionals: the plain peer of every network.

    Attributes:
        classes: emotion names, the order of the logits.
        weight: [C, D].
        bias: [C].
    """

    def __init__(self, inputs: int, classes: Sequence[str]) -> None:
        super().__init__()
        self.classes = tuple(classes)
        self.weight = nn.Parameter(torch.zeros(len(self.classes), inputs))
        self.bias = nn.Parameter(torch.zeros(len(self.classes)))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of ``[B, D]``."""
        return functional.linear(x, self.weight, self.bias)
