from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from typer import Typer
from typer.testing import CliRunner

from fedser.bundle import read
from fedser.commands.train import train
from fedser.errors import ConfigError, FedserError, KeyFileError, TooLittleDataError, UnknownLabelError, UsageError

TONES = {"anger": 320.0, "neutral": 180.0, "sadness": 110.0}


def record(path: Path, hertz: float, draw: np.random.Generator) -> None:
    """Half a second of a buzz with vibrato."""
    times = np.arange(8000) / 16000
    phase = 2 * np.pi * hertz * times + 0.5 * np.sin(2 * np.pi * 5 * times)
    wave = sum(np.sin(k * phase) / k for k in range(1, 8)) * np.hanning(8000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * wave + 0.001 * draw.standard_normal(8000), 16000)


def corpus(root: Path, speakers: int = 3, each: int = 3, emotions: tuple[str, ...] = tuple(TONES)) -> Path:
    """A labelled corpus with a manifest."""
    draw = np.random.default_rng(0)
    rows = ["path,speaker,emotion"]
    for speaker in range(speakers):
        for emotion in emotions:
            for take in range(each):
                name = f"{speaker}-{emotion}-{take}.wav"
                record(root / name, TONES[emotion] * draw.uniform(0.9, 1.1), draw)
                rows.append(f"{name},s{speaker},{emotion}")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(autouse=True)
def _own_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run(*arguments: object) -> dict[str, object]:
    """Type the command; its errors come out as they are."""
    app = Typer()
    app.command()(train)
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"])
    if isinstance(result.exception, FedserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert isinstance(told, dict)
    return told


def test_a_bundle_comes_out_that_the_users_own_new_key_signed(tmp_path: Path) -> None:
    out = tmp_path / "made" / "source.safetensors"
    told = run("--corpora", f"first={corpus(tmp_path / 'a')}", f"second={corpus(tmp_path / 'b', 2)}", "--out", out)
    public = tmp_path / "config" / "fedser" / "signing-key.pub"
    bundle = read(out, signer=str(public))
    assert bundle.header.corpora == ("first", "second")
    assert bundle.header.classes == ("anger", "neutral", "sadness")
    assert told["utterances"] == {"first": 27, "second": 18}
    assert set(bundle.header.uar) == {"first", "second"}
    assert bundle.header.training["epochs_trained"] == told["epochs"]
    assert bundle.linear() is not None
    assert bundle.normaliser().speakers == {}
    again = run("--corpora", f"first={tmp_path / 'a'}", "--corpora", f"second={tmp_path / 'b'}", "--out", out)
    assert again["signer"] == told["signer"]
    repeated = read(out, signer=str(public))
    assert repeated.header.model_copy(update={"revision": bundle.header.revision}) == bundle.header
    for name, tensor in bundle.tensors.items():
        assert torch.equal(tensor, repeated.tensors[name]), "the same seed gives the same bundle, to the bit"


def test_options_reach_the_header(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    told = run(
        *("--corpora", f"a={corpus(tmp_path / 'a', 2)}", "--out", out, "--name", "mine", "--bundle-version", 7),
        *("--licence", "CC BY 4.0", "--norm", "group", "--normalisation", "corpus", "--epochs", 2),
        *("--map", "sadness=neutral", "--classes", "anger,neutral", "--augment", "telephone,gain", "--seed", 3),
    )
    header = read(out, signer=str(tmp_path / "config" / "fedser" / "signing-key.pub")).header
    assert (header.name, header.version, header.licence, header.seed) == ("mine", 7, "CC BY 4.0", 3)
    assert (header.model.norm, header.normalisation.rule) == ("group", "corpus")
    assert header.training["augment"] == ["telephone", "gain"]
    assert header.classes == ("anger", "neutral")
    assert told["utterances"] == {"a": 18}, "copies are not counted as utterances"


def test_an_encoder_for_spectrograms(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    run("--corpora", f"a={corpus(tmp_path / 'a', 2, 2)}", "--out", out, "--features", "logmel", "--epochs", 1)
    bundle = read(out, signer=str(tmp_path / "config" / "fedser" / "signing-key.pub"))
    assert bundle.header.model.encoder == "resnet"
    assert bundle.linear() is None
    with pytest.raises(ConfigError, match="mlp"):
        run("--corpora", f"a={tmp_path / 'a'}", "--out", out, "--features", "logmel", "--encoder", "mlp")


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (["--corpora", "no-equals-sign"], UsageError, "no-equals-sign"),
        (["--corpora", "a={data}", "a={data}"], UsageError, "twice"),
        (["--corpora", "a={data}", "--out", "x.pt"], UsageError, "safetensors"),
        (["--corpora", "a={data}", "--classes", "angry,grmpf"], UnknownLabelError, "grmpf"),
        (["--corpora", "a={data}", "--classes", "anger,fear"], UsageError, "fear"),
        (["--corpora", "a={data}", "--classes", "anger"], TooLittleDataError, "two emotions"),
        (["--corpora", "a={data}", "--map", "anger"], UsageError, "--map"),
        (["--corpora", "a={data}", "--augment", "reverb"], ConfigError, "augment"),
        (["--corpora", "a={data}", "--key", "{data}/manifest.csv"], KeyFileError, "open to other users"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, options: list[str], error: type[FedserError], told: str) -> None:
    data = corpus(tmp_path / "a", 1, 2)
    with pytest.raises(error, match=told):
        run("--out", tmp_path / "o.safetensors", *[option.format(data=data) for option in options])
    assert not list(tmp_path.glob("o.*"))


@pytest.mark.parametrize(
    "words", [("--corpora", "a/b=made"), ("--corpora", "made=made", "--classes", ","), ("--corpora", "..=made")]
)
def test_names_and_classes_are_checked_before_anything_is_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    app = Typer()
    app.command()(train)
    outcome = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out" / "bundle.safetensors")])
    assert isinstance(outcome.exception, UsageError)
    assert not (tmp_path / "out").exists()


def test_one_class_three_utterances_or_no_labels_are_too_little(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    with pytest.raises(TooLittleDataError, match="anger"):
        run("--corpora", f"a={corpus(tmp_path / 'one', 3, 3, ('anger',))}", "--out", out)
    with pytest.raises(TooLittleDataError, match="Too few"):
        run("--corpora", f"a={corpus(tmp_path / 'three', 1, 1)}", "--out", out)
    bare = corpus(tmp_path / "bare", 1)
    (bare / "manifest.csv").unlink()
    with pytest.raises(FedserError) as refusal:
        run("--corpora", f"a={bare}", "--out", out)
    assert "manifest" in f"{refusal.value} {refusal.value.hint}"
    assert not out.exists()


def test_one_speaker_is_enough_and_the_header_says_what_was_not_measured(tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    told = run("--corpora", f"a={corpus(tmp_path / 'a', 1)}", "--out", out, "--epochs", 2)
    assert told["uar"] == {}
    assert str(told["validation"]).startswith("none")


def test_interrupted_training_leaves_nothing(tmp_path: Path) -> None:
    data, out = corpus(tmp_path / "a", 2), tmp_path / "out" / "o.safetensors"
    code = (
        "import sys\n"
        "from typer import Typer\n"
        "from fedser.commands.train import train\n"
        "app = Typer(pretty_exceptions_enable=False)\n"
        "app.command()(train)\n"
        "app()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--corpora", f"a={data}", "--out", str(out), "--epochs", "10000"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("training"):
            break
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert list(out.parent.iterdir()) == []
