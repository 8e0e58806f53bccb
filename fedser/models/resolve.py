"""From what a person asks for to what a bundle pins: weights by digest, and the features that go with them."""

from __future__ import annotations

from fedser.audio.features import FeatureSettings
from fedser.config import validate
from fedser.errors import ConfigError
from fedser.models.settings import ModelSettings
from fedser.pretrained import weights

USUAL = {"wav2vec2": "WAV2VEC2_BASE", "hubert": "HUBERT_BASE", "wavlm": "WAVLM_BASE_PLUS"}  # of the size base


def resolve(model: ModelSettings, features: FeatureSettings) -> tuple[ModelSettings, FeatureSettings]:
    """Put a pretrained encoder's weights into the store, and name them by digest in both settings.

    Other encoders, and their features, come back as they are. A provider's commands call this, a site never: a bundle
    holds digests already.

    Raises:
        ConfigError: the weights do not exist or do not fit.
        DependencyError: a digest that is not in the store.
        NetworkError: the download failed.
        OutputError: the store cannot be written.
    """
    if not model.pretrained:
        return model, features
    source = model.weights or (USUAL[model.encoder] if model.size == "base" else "")
    if not source:
        raise ConfigError(
            f"Nothing says which weights {model.encoder} {model.size} has.",
            "Set model.weights to a local file, or to the name of a torchaudio pipeline.",
        )
    digest = weights.obtain(source, model.encoder, model.size)
    pinned = model.model_copy(update={"weights": digest})
    kind = "pretrained" if model.trained == "frozen" else "waveform"
    return pinned, features_for(pinned, kind, features.seconds)


def features_for(model: ModelSettings, kind: str, seconds: float | None = None) -> FeatureSettings:
    """Feature settings of a kind; ``pretrained`` takes its encoder from the model, whose weights are pinned.

    Raises:
        ConfigError: the kind is not known, or the model names no digest.
    """
    values: dict[str, object] = {"kind": kind}
    if kind == "pretrained":
        values["pretrained"] = {"family": model.encoder, "size": model.size, "weights": model.weights}
    if kind == "waveform" and seconds is not None:
        values["seconds"] = seconds
    return validate(FeatureSettings, values, f"The features {kind} of the encoder {model.encoder}")
