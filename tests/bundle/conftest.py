from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedser.audio import features
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.bundle import BundleHeader, SigningKey, keys, write
from fedser.models import EmotionClassifier, ModelSettings, initialise


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return keys.create(tmp_path / "keys" / "provider")


@pytest.fixture
def header() -> BundleHeader:
    """Of a small residual net: its features have the smallest shape that can be chosen."""
    settings = features.FeatureSettings(kind="logmel", mels=8, seconds=0.2)
    model = ModelSettings(encoder="resnet", width=2, bottleneck=4)
    shape = features.shape(settings)
    return BundleHeader(
        name="small",
        version=3,
        signer="0" * 64,
        classes=("anger", "neutral"),
        features=settings,
        feature_version=features.version(settings),
        normalisation=NormalisationSettings(),
        statistics=_statistics(shape).header(with_speakers=False),
        model=model,
        shape=shape,
        adaptable=EmotionClassifier(model, shape, ("anger", "neutral")).adaptable(),
        corpora=("made-up",),
        licence="CC0-1.0",
        validation="none",
    )


@pytest.fixture
def tensors(header: BundleHeader) -> dict[str, Tensor]:
    model = EmotionClassifier(header.model, header.shape, header.classes)
    initialise(model, torch.Generator().manual_seed(1))
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    statistics = _statistics(header.shape).tensors(with_speakers=False)
    return found | {f"statistics.{name}": tensor for name, tensor in statistics.items()}


@pytest.fixture
def bundle_path(tmp_path: Path, header: BundleHeader, tensors: dict[str, Tensor], key: SigningKey) -> Path:
    path = tmp_path / "small.safetensors"
    write(path, header, tensors, key)
    return path


def _statistics(shape: tuple[int, ...]) -> SiteNormaliser:
    raw = torch.randn(6, *shape, generator=torch.Generator().manual_seed(2))
    return SiteNormaliser.fit(raw, ["a", "a", "a", "b", "b", None], NormalisationSettings())
