from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedser.audio import features
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.bundle import BundleHeader, keys, write
from fedser.commands.bundle import app
from fedser.errors import BundleFormatError, RollbackError, SignatureError
from fedser.models import EmotionClassifier, ModelSettings


@pytest.fixture
def published(tmp_path: Path) -> tuple[str, str]:
    """A bundle and the public key file of its signer."""
    kind = features.FeatureSettings()
    shape, classes = features.shape(kind), ("anger", "neutral")
    settings = ModelSettings(hidden=4, depth=1, bottleneck=2)
    model = EmotionClassifier(settings, shape, classes)
    statistics = SiteNormaliser.fit(torch.randn(4, *shape), [None] * 4, NormalisationSettings())
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"statistics.{n}": tensor for n, tensor in statistics.tensors(with_speakers=False).items()}
    key = keys.create(tmp_path / "key")
    header = BundleHeader(
        name="mine",
        version=5,
        signer=key.public_hex,
        classes=classes,
        features=kind,
        feature_version=features.version(kind),
        normalisation=NormalisationSettings(),
        statistics=statistics.header(with_speakers=False),
        model=settings,
        shape=shape,
        adaptable=model.adaptable(),
        corpora=("a", "b"),
        licence="CC BY 4.0",
        uar={"a": 0.5},
        validation="none",
    )
    path = tmp_path / "mine.safetensors"
    write(path, header, tensors, key)
    return str(path), str(keys.public_path(tmp_path / "key"))


def test_verify_says_what_it_verified(published: tuple[str, str]) -> None:
    path, public = published
    done = CliRunner().invoke(app, ["verify", path, "--signer", public, "--format", "json"])
    told = json.loads(done.stdout)
    assert (told["verified"], told["name"], told["version"]) == (True, "mine", 5)
    assert "in order" in CliRunner().invoke(app, ["verify", path, "--signer", public]).stdout


def test_verify_refuses_what_it_should(published: tuple[str, str], tmp_path: Path) -> None:
    path, public = published
    old = CliRunner().invoke(app, ["verify", path, "--signer", public, "--at-least", "6"])
    assert isinstance(old.exception, RollbackError)
    stranger = keys.create(tmp_path / "stranger").public_hex
    for arguments in (["--signer", stranger], []):
        assert isinstance(CliRunner().invoke(app, ["verify", path, *arguments]).exception, SignatureError)
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    assert isinstance(CliRunner().invoke(app, ["verify", path, "--signer", public]).exception, SignatureError)


def test_show_says_whether_the_signature_was_verified(published: tuple[str, str]) -> None:
    path, public = published
    unverified = CliRunner().invoke(app, ["show", path]).stdout
    assert "NOT verified" in unverified
    assert "held-out UAR:  a 50.0 %" in unverified
    verified = CliRunner().invoke(app, ["show", path, "--signer", public]).stdout
    assert "NOT verified" not in verified
    assert "signature: verified" in verified
    told = json.loads(CliRunner().invoke(app, ["show", path, "--format", "json"]).stdout)
    assert told["verified"] is False
    assert told["classes"] == ["anger", "neutral"]


def test_show_of_something_else_is_a_clear_error(tmp_path: Path) -> None:
    other = tmp_path / "weights.pt"
    other.write_bytes(b"PK\x03\x04 not a bundle")
    assert isinstance(CliRunner().invoke(app, ["show", str(other)]).exception, BundleFormatError)
