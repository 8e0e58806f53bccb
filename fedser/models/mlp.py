"""The multilayer perceptron: functionals to one vector, and the last part of the pretrained encoders."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from fedser.models.dropout import Dropout
from fedser.models.norms import vector_norm
from fedser.models.settings import ModelSettings


class MlpEncoder(nn.Module):
    """[linear, norm, ReLU, dropout] × depth, from ``[B, D]`` to ``[B, hidden]``."""

    def __init__(self, inputs: int, settings: ModelSettings) -> None:
        super().__init__()
        widths = [inputs, *[settings.hidden] * settings.depth]
        self.layers = nn.Sequential()
        for before, after in pairwise(widths):
            self.layers.append(nn.Linear(before, after))
            self.layers.append(vector_norm(settings.norm, after))
            self.layers.append(nn.ReLU())
            self.layers.append(Dropout(settings.dropout))
        self.outputs = settings.hidden

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, D]``."""
        encoded: Tensor = self.layers(x)
        return encoded
