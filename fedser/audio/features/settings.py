"""Which features, and how large."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedser.config import Settings


class FeatureSettings(Settings):
    """What is computed from each utterance.

    Attributes:
        kind: ``functionals`` (statistics of prosody, spectrum and voice quality), ``logmel`` (for
            convolutional encoders), ``waveform`` (for pretrained ones) or ``egemaps`` (through opensmile).
        mels: bands of ``logmel``.
        seconds: length of ``logmel`` and ``waveform``; longer utterances are cut around their centre, shorter
            ones padded at both ends.
    """

    kind: Literal["functionals", "logmel", "waveform", "egemaps"] = "functionals"
    mels: int = Field(default=64, ge=8, le=128)
    seconds: float = Field(default=3.0, ge=0.1, le=60.0)
