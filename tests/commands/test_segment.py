"""``fedser segment`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from fedser.audio import manifest
from fedser.commands.segment import segment
from fedser.errors import FedserError, ManifestError, NoAudioError, UsageError

app = typer.Typer()
app.command()(segment)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, FedserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """One stereo call: the left party speaks at 1 to 3 s, the right one at 5 to 8 s."""
    wave = 1e-3 * np.random.default_rng(0).standard_normal((10 * 8000, 2))
    wave[8000:24000, 0] *= 100
    wave[40000:64000, 1] *= 100
    (tmp_path / "calls").mkdir()
    soundfile.write(tmp_path / "calls" / "one.wav", wave, 8000)
    return tmp_path / "calls"


def test_the_manifest_can_be_scanned_and_split_channels_have_speakers(calls: Path) -> None:
    out = calls / "manifest.csv"
    result = json.loads(run(calls, "--out", out, "--channels", "split", "--format", "json"))
    assert (result["segments"], result["speakers"], result["set_aside"]) == (2, 2, [])
    first, second = manifest.read(out)
    assert (first.path, first.channel, first.speaker) == (calls / "one.wav", 0, "one/ch0")
    assert (second.channel, second.speaker) == (1, "one/ch1")
    assert out.read_text().splitlines()[1].startswith("one.wav,")


def test_a_second_run_reads_the_recordings_not_its_own_manifest(calls: Path) -> None:
    out = calls / "manifest.csv"
    run(calls, "--out", out)
    before = out.read_bytes()
    text = run(calls, "--out", out)
    assert out.read_bytes() == before
    assert "2 segments from 1 recordings" in text


def test_a_manifest_of_another_kind_is_not_overwritten(calls: Path) -> None:
    (calls / "manifest.csv").write_text("path,speaker\none.wav,anna\n")
    with pytest.raises(UsageError, match="was not written by fedser segment"):
        run(calls, "--out", calls / "manifest.csv")
    assert "anna" in (calls / "manifest.csv").read_text()


def test_json_lines(calls: Path, tmp_path: Path) -> None:
    run(calls, "--out", tmp_path / "new" / "m.jsonl")
    assert all(json.loads(line)["path"] for line in (tmp_path / "new" / "m.jsonl").read_text().splitlines())


def test_turns(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "t.rttm").write_text("SPEAKER one 1 1.0 2.0 <NA> <NA> anna <NA> <NA>\n")
    run(calls, "--out", tmp_path / "m.csv", "--rttm", tmp_path / "t.rttm")
    (only,) = manifest.read(tmp_path / "m.csv")
    assert (only.speaker, only.start, only.end) == ("anna", 1.0, 3.0)


def test_mistakes_of_users_leave_nothing_behind(calls: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.rttm").write_text("SPEAKER one\n")
    silent = tmp_path / "silent"
    silent.mkdir()
    soundfile.write(silent / "a.wav", np.zeros(80000), 8000)
    cases = [
        (UsageError, [calls, "--out", tmp_path / "out.txt"]),
        (NoAudioError, [tmp_path / "missing", "--out", tmp_path / "out.csv"]),
        (NoAudioError, [silent, "--out", tmp_path / "out.csv"]),
        (ManifestError, [calls, "--out", tmp_path / "out.csv", "--rttm", tmp_path / "bad.rttm"]),
    ]
    for kind, arguments in cases:
        with pytest.raises(kind):
            run(*arguments)
    assert not list(tmp_path.glob("*.csv"))
    assert not list(tmp_path.glob(".*part"))
