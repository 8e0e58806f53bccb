"""From what a person asks for to what a bundle pins: weights by digest, and the features that go with them."""

from __future__ import annotations

from fedser.audio.features import FeatureSettings
from fedser.errors import ConfigError
from fedser.models.settings import ModelSettings
from fedser.pretrained import Pretrained, weights

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
    if model.trained != "frozen":
        return pinned, FeatureSettings(kind="waveform", seconds=features.seconds)
    named = Pretrained.model_validate({"family": model.encoder, "size": model.size, "weights": digest})
    return pinned, FeatureSettings(kind="pretrained", pretrained=named)
