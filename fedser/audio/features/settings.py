"""Which features, and how large."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from fedser.config import Settings
from fedser.pretrained.settings import Pretrained


class FeatureSettings(Settings):
    """What is computed from each utterance.

    Attributes:
        kind: ``functionals`` (statistics of prosody, spectrum and voice quality), ``logmel`` (for
            convolutional encoders), ``egemaps`` (through opensmile), ``pretrained`` (mean and standard deviation of
            each layer of a frozen pretrained encoder) or ``waveform`` (for pretrained encoders that are trained).
        mels: bands of ``logmel``.
        seconds: length of ``logmel`` and ``waveform``; longer utterances are cut around their centre, shorter
            spectrograms padded at both ends, shorter waveforms repeated.
        pretrained: the encoder of ``pretrained``.
    """

    kind: Literal["functionals", "logmel", "waveform", "egemaps", "pretrained"] = "functionals"
    mels: int = Field(default=64, ge=8, le=128)
    seconds: float = Field(default=3.0, ge=0.1, le=60.0)
    pretrained: Pretrained | None = None

    @model_validator(mode="after")
    def _named(self) -> FeatureSettings:
        if (self.kind == "pretrained") != (self.pretrained is not None):
            raise ValueError("the kind pretrained, and no other, needs 'pretrained': family, size and weights")
        return self
