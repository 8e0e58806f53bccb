"""Fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from fedser.pretrained import Pretrained

CORPORA = ("emodb", "emovo", "ravdess", "urdu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own feature cache; the tests of one run share one."""
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def corpora() -> Path:
    """The folder with the real corpora, named by FEDSER_CORPORA."""
    named = os.environ.get("FEDSER_CORPORA")
    if not named:
        pytest.skip("FEDSER_CORPORA is not set: it names a folder with emodb, emovo, ravdess and urdu")
    missing = [name for name in CORPORA if not (Path(named) / name).is_dir()]
    if missing:
        pytest.skip(f"FEDSER_CORPORA lacks {', '.join(missing)}")
    return Path(named)


@pytest.fixture(scope="session")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic corpus with manifest.csv: 4 speakers, 3 emotions, 48 short recordings."""
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("speech") / "tiny"
    emotions = ("anger", "neutral", "sadness")
    write_corpus(folder, CorpusPlan("tiny", speakers=4, utterances=48, emotions=emotions, seconds=(0.6, 0.9)), seed=5)
    return folder


@pytest.fixture(scope="session")
def fedser(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the real ``fedser`` command in a process of its own."""

    def call(*arguments: object, cwd: Path | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | extra
        environment["FEDSER_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        command = [sys.executable, "-m", "fedser.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)

    return call


@pytest.fixture
def tiny_encoder(tmp_path: Path) -> Callable[[str], Pretrained]:
    """Put random weights of a family's tiny encoder into the store; the same ones each time."""
    from safetensors.torch import save_file

    from fedser.compute import generator
    from fedser.pretrained import Pretrained, weights
    from fedser.pretrained.architectures import architecture

    def make(family: str) -> Pretrained:
        model = architecture(family, "tiny").build()
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator("tiny encoder", family, name))
            parameter.data.copy_(0.3 * drawn + (1.0 if "norm.weight" in name else 0.0))
        path = tmp_path / f"{family}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
        digest = weights.obtain(str(path), family, "tiny")
        return Pretrained.model_validate({"family": family, "size": "tiny", "weights": digest})

    return make


@dataclass(frozen=True)
class SignedBundle:
    """A small bundle on disk and the public key of its signer."""

    path: Path
    signer: str


@pytest.fixture(scope="session")
def signed(speech: Path, tmp_path_factory: pytest.TempPathFactory) -> SignedBundle:
    """A bundle trained on ``speech`` for a few epochs, by the real pipeline."""
    from fedser import bundle
    from fedser.audio import dataset
    from fedser.audio.features import FeatureSettings
    from fedser.bundle import keys
    from fedser.models import ModelSettings
    from fedser.train import TrainSettings, train_bundle

    folder = tmp_path_factory.mktemp("bundle")
    key = keys.create(folder / "key")
    data = dataset.load(speech, FeatureSettings(), cache=tmp_path_factory.getbasetemp() / "cache")
    source = train_bundle(
        {"tiny": data},
        key=key,
        name="tiny",
        licence="none: synthetic speech",
        model=ModelSettings(hidden=16, bottleneck=8),
        settings=TrainSettings(epochs=8, early_stop=False),
    )
    path = folder / "tiny.safetensors"
    bundle.write(path, source.header, source.tensors, key)
    return SignedBundle(path, key.public_hex)
