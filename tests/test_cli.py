"""fedser as a new user meets it: help, errors and what is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import soundfile

Run = Callable[..., CompletedProcess[str]]
COMMANDS = (
    *("demo", "segment", "train", "adapt", "predict", "simulate", "bench", "report", "doctor"),
    *("corpus scan", "keys create", "keys show", "bundle show", "bundle verify"),
)


def tone(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(int(16000 * seconds)) / 16000
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (150 + 20 * seed) * t * (1 + 0.1 * t)) + noise, 16000)
    return path


def refused(done: CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(fedser: Run, command: str) -> None:
    done = fedser(*command.split(), "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


def test_version(fedser: Run) -> None:
    assert fedser("--version").stdout.startswith("fedser ")


def test_a_misspelt_option_and_command(fedser: Run) -> None:
    refused(fedser("adapt", "--dta", "x"), 2, "--data")
    refused(fedser("adpt"), 2, "adpt")


def test_a_missing_folder_and_one_without_audio(fedser: Run, tmp_path: Path) -> None:
    refused(fedser("adapt", "--data", tmp_path / "nowhere", "--out", tmp_path / "out"), 10, "nowhere", "what to do")
    (tmp_path / "empty").mkdir()
    refused(fedser("corpus", "scan", tmp_path / "empty"), 10, "empty")


def test_an_error_as_json_is_one_object(fedser: Run, tmp_path: Path) -> None:
    done = fedser("corpus", "scan", tmp_path / "nowhere", "--format", "json")
    assert json.loads(done.stdout)["error"]["code"] == done.returncode == 10


@pytest.mark.parametrize("words", [("adapt", "--dta", "x"), ("train", "--epochs", "many"), ("scan",)])
def test_a_wrong_command_line_as_json_is_one_object(fedser: Run, words: tuple[str, ...]) -> None:
    done = fedser(*words, "--format", "json")
    refused(done, 2, "error:")
    assert json.loads(done.stdout)["error"]["code"] == 2


def test_the_bare_command_shows_the_help(fedser: Run) -> None:
    done = fedser()
    assert "Traceback" not in done.stderr
    assert "Usage" in done.stdout + done.stderr


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_reader_that_goes_away_is_no_traceback(form: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "fedser.cli", "doctor", "--format", form]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_an_unknown_label_names_the_file(fedser: Run, tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_text("path,emotion\na.wav,grumpiness\n")
    refused(fedser("corpus", "scan", tmp_path), 11, "grumpiness", "a.wav")


def labelled(folder: Path, rows: list[tuple[str, str]]) -> Path:
    lines = ["path,speaker,emotion"]
    for k, (speaker, emotion) in enumerate(rows):
        tone(folder / f"{k}.wav", 0.5, seed=k)
        lines.append(f"{k}.wav,{speaker},{emotion}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def train(fedser: Run, folder: Path, out: Path, *more: object) -> CompletedProcess[str]:
    home = {"HOME": str(out.parent), "XDG_CONFIG_HOME": str(out.parent / "config")}
    return fedser("train", "--corpora", f"made={folder}", "--out", out, "--epochs", 2, *more, **home)


def test_training_on_one_speaker_works_and_on_one_class_is_refused(fedser: Run, tmp_path: Path) -> None:
    one_speaker = labelled(tmp_path / "one", [("s", e) for e in ("anger", "neutral") * 4])
    done = train(fedser, one_speaker, tmp_path / "out.safetensors")
    assert done.returncode == 0, done.stderr
    one_class = labelled(tmp_path / "class", [(f"s{k}", "anger") for k in range(4)])
    refused(train(fedser, one_class, tmp_path / "none.safetensors"), 14)
    assert not (tmp_path / "none.safetensors").exists()


def test_training_without_labels_lists_the_rules(fedser: Run, tmp_path: Path) -> None:
    tone(tmp_path / "plain" / "a.wav")
    done = train(fedser, tmp_path / "plain", tmp_path / "out.safetensors")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "manifest" in done.stderr


def test_three_utterances_can_be_adapted_to(fedser: Run, tmp_path: Path, signed: Any) -> None:
    for k in range(3):
        tone(tmp_path / "few" / f"{k}.wav", seed=k)
    done = fedser(
        *("adapt", "--bundle", signed.path, "--signer", signed.signer, "--data", tmp_path / "few"),
        *("--out", tmp_path / "out", "--format", "json"),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["utterances"] == 3
    assert result["metrics"] is None


def test_an_unknown_method_is_refused_before_any_work(fedser: Run, tmp_path: Path, speech: Path, signed: Any) -> None:
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    done = fedser("adapt", *bundle, "--data", speech, "--method", "ecn", "--out", tmp_path / "out")
    refused(done, 2, "'ecan'")
    assert not (tmp_path / "out").exists()


def test_a_bundle_without_a_trusted_signer_is_refused(fedser: Run, tmp_path: Path, speech: Path, signed: Any) -> None:
    refused(fedser("adapt", "--bundle", signed.path, "--data", speech, "--out", tmp_path / "out"), 21, "--signer")
    wrong = "0" * 64
    arguments = ("--bundle", signed.path, "--signer", wrong, "--data", speech, "--out", tmp_path / "out")
    refused(fedser("adapt", *arguments), 21)


def test_an_output_that_cannot_be_written(fedser: Run, tmp_path: Path, speech: Path, signed: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    refused(fedser("adapt", *bundle, "--data", speech, "--out", tmp_path / "file" / "out"), 40)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_output_folder(fedser: Run, tmp_path: Path, speech: Path, signed: Any) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    refused(fedser("adapt", *bundle, "--data", speech, "--out", tmp_path / "locked" / "out"), 40)


def test_ctrl_c_during_training_leaves_nothing_behind(tmp_path: Path, speech: Path) -> None:
    out = tmp_path / "out" / "bundle.safetensors"
    environment = os.environ | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [sys.executable, "-m", "fedser.cli", "train", "--corpora", f"tiny={speech}"]
    command += ["--out", str(out), "--epochs", "9999"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training"):
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == 130
    assert "Traceback" not in rest
    assert "interrupted" in rest
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_adapt_predict_and_report_agree(fedser: Run, tmp_path: Path, speech: Path, signed: Any) -> None:
    out = tmp_path / "out"
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    done = fedser("adapt", *bundle, "--data", speech, "--epochs", 2, "--out", out, "--format", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert 0 <= result["metrics"]["uar"] <= 100
    page = (out / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[^"'\s>]+""", page) == []

    answered = fedser("predict", "--model", out, speech, "--format", "json")
    assert answered.returncode == 0, answered.stderr
    rows = json.loads(answered.stdout)["predictions"]
    saved = (out / "predictions.csv").read_text().splitlines()
    header = saved[0].split(",")
    for row, line in zip(rows, saved[1:], strict=True):
        cells = dict(zip(header, line.split(","), strict=False))
        assert cells["emotion"] == row["emotion"]
        assert float(cells["confidence"]) == pytest.approx(row["confidence"], abs=2e-4)
    again = fedser("report", out)
    assert again.returncode == 0, again.stderr


def test_predict_updates_only_an_adapted_model(fedser: Run, speech: Path, signed: Any) -> None:
    arguments = ("--model", signed.path, "--signer", signed.signer, "--update")
    refused(fedser("predict", *arguments, next(speech.rglob("*.wav"))), 2, "fedser adapt")
