"""What a model looks like: plain values that travel in a bundle's header."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from fedser.config import Settings
from fedser.pretrained.settings import Family, Size

# Fields that only pretrained encoders use.
PRETRAINED = frozenset({"size", "weights", "trained", "layers", "rank", "alpha"})
Encoder = Literal["mlp", "vgg11", "resnet", "wav2vec2", "hubert", "wavlm"]


class ModelSettings(Settings):
    """Settings of :class:`fedser.models.EmotionClassifier`.

    Attributes:
        encoder: ``mlp`` for one vector per utterance (functionals), ``vgg11`` or ``resnet`` for log-mel, or a
            pretrained one: ``wav2vec2``, ``hubert`` or ``wavlm``.
        norm: ``batch``, or ``layer`` or ``group``, which treat each utterance alone and so suit
            differentially private training.
        hidden: units of each hidden layer of the MLP, which follows a pretrained encoder too.
        depth: hidden layers of the MLP.
        bottleneck: width of the bottleneck, the space of neighbours and prototypes.
        dropout: share of units dropped in training.
        width: channels of the first convolution of VGG-11; the residual net starts with half of them.
        size: of a pretrained encoder.
        weights: of a pretrained encoder: a torchaudio pipeline's name, a local file, or the digest of weights in the
            store, which is what a bundle holds. Without it the family's usual pipeline.
        trained: of a pretrained encoder: nothing (``frozen``, with the features ``pretrained``), its ``last`` layers,
            or low-rank changes (``lora``) of the attention of its last layers (both with the features ``waveform``).
        layers: how many last layers ``last`` and ``lora`` train; 0 for all.
        rank: of the low-rank changes.
        alpha: their weight is alpha / rank.
    """

    encoder: Encoder = "mlp"
    norm: Literal["batch", "layer", "group"] = "batch"
    hidden: int = Field(default=256, ge=1, le=8192)
    depth: int = Field(default=2, ge=1, le=16)
    bottleneck: int = Field(default=128, ge=1, le=4096)
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    width: int = Field(default=64, ge=2, le=256)
    size: Size = "base"
    weights: str = Field(default="", max_length=4096)
    trained: Literal["frozen", "last", "lora"] = "frozen"
    layers: int = Field(default=2, ge=0, le=48)
    rank: int = Field(default=8, ge=1, le=256)
    alpha: float = Field(default=16.0, gt=0.0, le=1e4, allow_inf_nan=False)

    @property
    def pretrained(self) -> bool:
        """Whether the encoder is a pretrained one."""
        return self.encoder in get_args(Family)

    @property
    def quick(self) -> bool:
        """Whether the model sees one set of descriptors an utterance, and so trains in moments."""
        return self.encoder == "mlp" or (self.pretrained and self.trained == "frozen")
