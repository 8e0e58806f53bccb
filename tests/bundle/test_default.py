"""The bundle that ships inside the package."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedser.audio import features
from fedser.audio.dataset import load
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import SiteNormaliser
from fedser.bundle import format, keys, read
from fedser.errors import SignatureError
from fedser.models import EmotionClassifier, LinearClassifier

FOLDER = format.default_path().parent


def test_it_verifies_and_belongs_to_the_features_of_this_version() -> None:
    bundle = read(None)
    assert bundle.header.corpora == ("emodb",)
    assert bundle.header.features == FeatureSettings()
    assert bundle.header.feature_version == features.version(FeatureSettings())
    assert bundle.header.shape == features.shape(FeatureSettings())
    assert bundle.header.normalisation.rule == "auto"
    assert bundle.header.uar["emodb"] > 0.7


def test_the_whole_folder_is_small_and_holds_no_secret() -> None:
    files = sorted(FOLDER.iterdir())
    names = [path.name for path in files]
    stem = "emodb-functionals"
    assert names == [f"{stem}.md", f"{stem}.safetensors", f"{stem}.safetensors.sig", "signer.pub"]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert not any(b"PRIVATE" in path.read_bytes() for path in files)


def test_it_holds_weights_and_statistics_only() -> None:
    bundle = read(None)
    names = {name for name in bundle.tensors if name.startswith("model.")}
    model = EmotionClassifier(bundle.header.model, bundle.header.shape, bundle.header.classes)
    assert names == {f"model.{name}" for name in model.state_dict()}
    others = {"linear.weight", "linear.bias", "statistics.site.count", "statistics.site.mean", "statistics.site.m2"}
    assert set(bundle.tensors) - names == others
    assert bundle.header.statistics["speakers"] == []


def test_its_probabilities_are_finite_whatever_it_hears() -> None:
    bundle = read(None)
    linear = bundle.linear()
    assert linear is not None
    normaliser = bundle.normaliser()
    raw = 100 * torch.randn(6, *bundle.header.shape, generator=torch.Generator().manual_seed(0))
    x = normaliser.transform(raw, [None] * 6)
    for model in (bundle.classifier(), linear):
        with torch.no_grad():
            probabilities = (model(x) / bundle.header.temperature).softmax(1)
        assert probabilities.shape == (6, 7)
        assert bool(torch.isfinite(probabilities).all())
        torch.testing.assert_close(probabilities.sum(1), torch.ones(6))


def test_the_packaged_key_trusts_this_file_alone(tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(format.default_path().read_bytes())
    format.signature_path(copy).write_bytes(format.signature_path(format.default_path()).read_bytes())
    with pytest.raises(SignatureError, match="Nothing says"):
        read(copy)
    assert read(copy, signer=keys.signer(str(FOLDER / "signer.pub"))).digest == read(None).digest


@pytest.mark.corpora
def test_it_knows_emodb(corpora: Path) -> None:
    """It was trained on these, so only that it reads them as in its training is tested here."""
    bundle = read(None)
    data = load(corpora / "emodb", bundle.header.features)
    y = data.labels(bundle.header.classes)
    normaliser = SiteNormaliser.fit(data.raw, data.speakers, bundle.header.normalisation)
    x = normaliser.transform(data.raw, data.speakers)
    models: list[EmotionClassifier | LinearClassifier | None] = [bundle.classifier(), bundle.linear()]
    for model in models:
        assert model is not None
        with torch.no_grad():
            right = model(x).argmax(1) == y
        recalls = [right[y == number].float().mean() for number in range(len(bundle.header.classes))]
        assert float(torch.stack(recalls).mean()) > 0.85
