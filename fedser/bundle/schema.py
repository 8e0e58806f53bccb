"""What the header of a source bundle says: settings and facts, never code."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, StringConstraints, model_validator

from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings
from fedser.config import Settings
from fedser.models import ModelSettings

SCHEMA_VERSION = 1

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Size = Annotated[int, Field(ge=1, le=2**24)]


class BundleHeader(Settings):
    """The one JSON entry in a bundle's metadata.

    Attributes:
        schema_version: version of this list of fields.
        name: the bundle's name; its versions form one line.
        version: grows with each release; a site refuses a smaller one than it has accepted.
        signer: the public Ed25519 key that signs it, in hexadecimal.
        classes: emotions, the order of the logits.
        features: how features are computed.
        feature_version: the version of that computation; another one cannot use these weights.
        normalisation: the rule by which each site normalises its features.
        statistics: how the source's own statistics, kept as tensors, are read.
        model: encoder, bottleneck and head.
        shape: shape of one utterance's features.
        adaptable: names of the model's parameters that a site may adapt.
        temperature: divides the logits; calibrated on held-out source speakers.
        corpora: names of the training corpora.
        licence: terms of the weights.
        uar: per corpus, the speaker-independent, cross-validated UAR on the source itself (a fraction); never
            measured on utterances that the measured model was trained on. Empty where it cannot be had.
        validation: how ``uar`` and ``temperature`` were found.
        training: the training settings.
        seed: of the training.
        versions: of fedser and torch.
        revision: git revision of the code, where it was known.
        linear: whether logistic regression on the same features is inside as well.
    """

    schema_version: int = SCHEMA_VERSION
    name: Name
    version: int = Field(default=1, ge=1, le=2**53)
    signer: Hex
    classes: tuple[Line, ...] = Field(min_length=2, max_length=256)
    features: FeatureSettings
    feature_version: Line
    normalisation: NormalisationSettings
    statistics: dict[Line, Any] = Field(default_factory=dict, max_length=32)
    model: ModelSettings
    shape: tuple[Size, ...] = Field(min_length=1, max_length=3)
    adaptable: tuple[Line, ...] = Field(max_length=4096)
    temperature: float = Field(default=1.0, gt=0.0, le=1000.0, allow_inf_nan=False)
    corpora: tuple[Line, ...] = Field(min_length=1, max_length=256)
    licence: Line
    uar: dict[Line, Annotated[float, Field(ge=0.0, le=1.0)]] = Field(default_factory=dict, max_length=256)
    validation: Line
    training: dict[Line, Any] = Field(default_factory=dict, max_length=256)
    seed: int = 0
    versions: dict[Line, Line] = Field(default_factory=dict, max_length=32)
    revision: Line | None = None
    linear: bool = False

    @model_validator(mode="after")
    def _once(self) -> BundleHeader:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is named twice")
        if self.model.weights and not re.fullmatch(r"[0-9a-f]{64}", self.model.weights):
            raise ValueError("the pretrained weights are not named by their digest")
        return self
