"""Encoders: features of an utterance to one vector; their table, and the two for log-mel.

The classes hold plain ``torch.nn`` layers, and a dropout that equals torch's, so that their parameters have short,
stable names and every tool for per-sample gradients knows the layers.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from fedser.errors import ConfigError
from fedser.models.dropout import Dropout
from fedser.models.layer_mix import PooledEncoder
from fedser.models.mlp import MlpEncoder
from fedser.models.norms import NormKind, map_norm
from fedser.models.pretrained import PretrainedEncoder
from fedser.models.settings import ModelSettings
from fedser.pretrained.architectures import architecture


class VggEncoder(nn.Module):
    """VGG-11 (Simonyan and Zisserman 2015, configuration A) over log-mel ``[B, mels, frames]``.

    Global average pooling takes the place of the three large linear layers, so any length fits. ``width`` is
    64 in the paper. Output ``[B, 8 · width]``.
    """

    PLAN = (1, 0, 2, 0, 4, 4, 0, 8, 8, 0, 8, 8, 0)  # channels in units of the width; 0 is a pooling

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        channels = 1
        for factor in self.PLAN:
            if factor == 0:
                self.layers.append(nn.MaxPool2d(2, ceil_mode=True))  # short utterances keep a frame
                continue
            self.layers.append(nn.Conv2d(channels, factor * settings.width, 3, padding=1))
            channels = factor * settings.width
            self.layers.append(map_norm(settings.norm, channels))
            self.layers.append(nn.ReLU())
        self.dropout = Dropout(settings.dropout)
        self.outputs = channels

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, mels, frames]``."""
        pooled: Tensor = self.dropout(self.layers(x.unsqueeze(1)).mean(dim=(2, 3)))
        return pooled


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al. 2016); a stride above 1 shrinks mels and frames."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: NormKind) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.first_norm = map_norm(norm, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.second_norm = map_norm(norm, outputs)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, inputs, h, w]`` to ``[B, outputs, ⌈h/stride⌉, ⌈w/stride⌉]``."""
        inner = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(inner)) + self.shortcut(x))


class ResidualEncoder(nn.Module):
    """A small residual net over log-mel ``[B, mels, frames]``: stem, four blocks, global average pooling.

    Output ``[B, 4 · width]``; with the default width about 1.3 million parameters.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        start = settings.width // 2
        self.stem = nn.Conv2d(1, start, 3, stride=2, padding=1)
        self.stem_norm = map_norm(settings.norm, start)
        widths = [start, start, 2 * start, 4 * start, 8 * start]
        self.blocks = nn.Sequential()
        for place, (before, after) in enumerate(pairwise(widths)):
            self.blocks.append(ResidualBlock(before, after, 1 if place == 0 else 2, settings.norm))
        self.dropout = Dropout(settings.dropout)
        self.outputs = widths[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Encode ``[B, mels, frames]``."""
        stem = functional.relu(self.stem_norm(self.stem(x.unsqueeze(1))))
        pooled: Tensor = self.dropout(self.blocks(stem).mean(dim=(2, 3)))
        return pooled


Encoder = MlpEncoder | VggEncoder | ResidualEncoder | PooledEncoder | PretrainedEncoder


def build(settings: ModelSettings, shape: tuple[int, ...]) -> Encoder:
    """The encoder for features of ``shape`` per utterance.

    Args:
        settings: name it.
        shape: ``(D,)`` for descriptors, ``(mels, frames)`` or ``(1, samples)``.

    Raises:
        ConfigError: the encoder does not take features of this shape.
        DependencyError: the pretrained weights are not on this machine.
    """
    if settings.pretrained:
        return _pretrained(settings, shape)
    if settings.encoder == "mlp":
        if len(shape) != 1:
            raise ConfigError(
                f"The encoder mlp takes one vector per utterance, not features of shape {shape}.",
                "Choose the encoder that the features are for, or the features functionals.",
            )
        return MlpEncoder(shape[0], settings)
    if len(shape) != 2 or shape[0] == 1:
        raise ConfigError(
            f"The encoder {settings.encoder} takes log-mel features (mels, frames), not shape {shape}.",
            "Choose the features logmel, or the encoder mlp.",
        )
    return VggEncoder(settings) if settings.encoder == "vgg11" else ResidualEncoder(settings)


def _pretrained(settings: ModelSettings, shape: tuple[int, ...]) -> PooledEncoder | PretrainedEncoder:
    if settings.trained != "frozen":
        if len(shape) != 2 or shape[0] != 1:
            raise ConfigError(
                f"A pretrained encoder that is trained takes waveforms, not features of shape {shape}.",
                "Choose the features waveform, or model.trained=frozen.",
            )
        return PretrainedEncoder(settings)
    row = architecture(settings.encoder, settings.size)
    if shape != (row.statistics * row.levels * row.width,):
        raise ConfigError(
            f"{settings.encoder} {settings.size}, frozen, takes its own pooled layers, not features of shape {shape}.",
            "Choose the features pretrained with the same encoder, or model.trained=lora.",
        )
    return PooledEncoder(settings, row)


def touching_input(encoder: Encoder) -> list[nn.Module]:
    """The parts whose weights are multiplied with the input itself, or with what a frozen encoder makes of it.

    What a public, frozen encoder computes is no secret to whoever has the weights: there the first layers that sites
    train are the first of the model.
    """
    if isinstance(encoder, PooledEncoder):
        return [encoder.mix, encoder.tail.layers[0]]
    if isinstance(encoder, PretrainedEncoder):
        first = [*encoder.trained, *encoder.adapters][:1]
        return [*first, encoder.mix, encoder.norm, encoder.tail.layers[0]]
    return [encoder.stem if isinstance(encoder, ResidualEncoder) else encoder.layers[0]]
