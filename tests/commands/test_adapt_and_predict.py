"""``fedser adapt`` and ``fedser predict``: what their options promise, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import soundfile

from fedser.adapt.guard import CANDIDATES, DEFAULT

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
        ("--option", "temperature=0.1", "--method"),
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


def test_the_guard_is_on_and_tells_what_it_chose_and_why(
    fedser: Run, speech: Path, signed: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    done = fedser("adapt", *bundle, "--data", speech, "--epochs", 2, "--out", out, "--format", "json")
    assert done.returncode == 0, done.stderr
    printed, results = json.loads(done.stdout), json.loads((out / "results.json").read_text())
    guard = results["guard"]
    assert tuple(guard["scores"]) == tuple(guard["uar"]) == CANDIDATES
    assert guard["chosen"] in CANDIDATES
    assert results["method"] == printed["method"] == printed["guard"]["chosen"] == guard["chosen"]
    assert results["metrics"]["uar"] == pytest.approx(guard["uar"][guard["chosen"]])
    assert results["metrics"]["source_uar"] == pytest.approx(guard["uar"]["source"])
    assert printed["guard"]["reason"] == guard["reason"]
    page = (out / "report.html").read_text()
    assert "The guard" in page
    assert "predictability" in page


def test_with_a_method_the_guard_decides_between_it_and_the_source_and_can_be_switched_off(
    fedser: Run, speech: Path, signed: Any, tmp_path: Path
) -> None:
    bundle = ("--bundle", signed.path, "--signer", signed.signer)
    arguments = ("adapt", *bundle, "--data", speech, "--epochs", 1, "--out", tmp_path / "out")
    done = fedser(*arguments, "--method", "aad", "--option", "decay=2")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["guard"]["scores"]) == ["source", "aad"]
    assert f"guard: chose {results['guard']['chosen']} of source, aad." in done.stdout
    for method, used in (("aad", "aad"), (None, DEFAULT)):
        done = fedser(*arguments, *(("--method", method) if method else ()), "--no-guard")
        assert done.returncode == 0, done.stderr
        results = json.loads((tmp_path / "out" / "results.json").read_text())
        assert (results["guard"], results["method"]) == (None, used)
        assert "guard: " not in done.stdout


def test_recordings_without_speech_keep_the_source(fedser: Run, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(30):
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * draw.standard_normal(8000), 16_000)
    done = fedser("adapt", "--data", tmp_path, "--method", "shot", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "guard: chose source of source, shot. The recordings are unlike the source's speech" in done.stdout
    assert "was kept for 30 utterances" in (tmp_path / "out" / "report.html").read_text()
