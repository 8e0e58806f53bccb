"""``fedser adapt`` and ``fedser predict``: what their options promise, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def adapted(fedser: Run, speech: Path, signed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("adapted") / "out"
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    done = fedser("adapt", *bundle, "--data", speech, "--method", "source", "--classes", "Angry,sad", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_metrics_count_the_emotions_of_the_site(adapted: Path, speech: Path) -> None:
    results = json.loads((adapted / "results.json").read_text())
    rows = (speech / "manifest.csv").read_text().splitlines()
    assert results["allowed"] == ["anger", "sadness"]
    assert set(results["answers"]) <= {"anger", "sadness"}
    assert results["metrics"]["scored"] == sum("anger" in row or "sadness" in row for row in rows[1:])
    assert results["metrics"]["recall"]["neutral"] is None


@pytest.mark.parametrize(
    ("option", "value", "word"),
    [
        ("--classes", ",", "No emotion"),
        ("--classes", "anger,grumpiness", "grumpiness"),
        ("--unknown-below", "nan", "confidence"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_any_work(
    fedser: Run, tmp_path: Path, speech: Path, option: str, value: str, word: str
) -> None:
    done = fedser("adapt", "--data", speech, option, value, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert word in done.stderr
    assert not (tmp_path / "out").exists()


def test_update_keeps_the_statistics_but_not_the_threshold_of_one_call(
    fedser: Run, adapted: Path, speech: Path, tmp_path: Path
) -> None:
    from fedser.adapt.site import SiteModel

    copy = tmp_path / "model.safetensors"
    copy.write_bytes((adapted / "model.safetensors").read_bytes())
    recording = next(speech.rglob("*.wav"))
    (tmp_path / "new.csv").write_text(f"path,speaker\n{recording},newcomer\n")
    done = fedser("predict", "--model", copy, tmp_path / "new.csv", "--update", "--unknown-below", "1")
    assert done.returncode == 0, done.stderr
    assert "unknown" in done.stdout
    kept = SiteModel.load(copy)
    assert kept.header.unknown_below == 0
    assert kept.normaliser.statistics_for("newcomer").startswith("speaker newcomer (1 utterance)")


def test_a_cut_adapted_model_is_named_and_the_site_told_to_adapt_again(
    fedser: Run, adapted: Path, speech: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((adapted / "model.safetensors").read_bytes()[:-100])
    done = fedser("predict", "--model", cut, next(speech.rglob("*.wav")), "--format", "json")
    assert done.returncode == 20
    error = json.loads(done.stdout)["error"]
    assert "cut.safetensors" in error["message"]
    assert error["hint"] == "Adapt again."
