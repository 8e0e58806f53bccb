"""``fedser corpus scan`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from fedser.commands.corpus import app
from fedser.errors import FedserError, NoAudioError, OutputError, UsageError


def scan(*arguments: object) -> str:
    """Run the command and return stdout; its errors come out as they are."""
    result = CliRunner().invoke(app, ["scan", *map(str, arguments)], catch_exceptions=True)
    if isinstance(result.exception, FedserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def emodb(tmp_path: Path) -> Path:
    """Three good recordings of two speakers, a silent one and a stranger."""
    root = tmp_path / "emodb"
    root.mkdir()
    random = np.random.default_rng(0)
    for name, seconds in (("03a01Fa", 1.0), ("03a01Wa", 2.0), ("16b10Wb", 3.0)):
        soundfile.write(root / f"{name}.wav", 0.1 * random.standard_normal(int(seconds * 16000)), 16000)
    soundfile.write(root / "16b10Nb.wav", np.zeros(16000), 16000)
    soundfile.write(root / "stranger.wav", 0.1 * random.standard_normal(16000), 16000)
    return root


def test_json_counts_everything(emodb: Path) -> None:
    result = json.loads(scan(emodb, "--format", "json"))
    assert (result["reader"], result["utterances"]) == ("emodb", 3)
    assert result["seconds"] == {"total": 6.0, "min": 1.0, "mean": 2.0, "max": 3.0}
    assert result["emotions"] == {"anger": 2, "happiness": 1}
    assert result["speakers"]["03"] == {
        "gender": "male",
        "utterances": 2,
        "seconds": 3.0,
        "emotions": {"anger": 1, "happiness": 1},
    }
    assert result["rates"] == {"16000": 4}  # files that could be read
    assert result["channels"] == {"1": 4}
    assert result["set_aside"]["reasons"] == {"not_in_corpus": 1, "silent": 1}


def test_text_shows_the_table_and_the_reasons(emodb: Path) -> None:
    lines = scan(emodb).splitlines()
    assert any(line.split() == ["03", "male", "0.1", "2", "1", "1"] for line in lines)
    assert any(line.split() == ["all", "0.1", "3", "2", "1"] for line in lines)
    assert any("silent" in line and "16b10Nb.wav" in line for line in lines)


def test_out_writes_the_quarantine(emodb: Path, tmp_path: Path) -> None:
    result = json.loads(scan(emodb, "--format", "json", "--out", tmp_path / "out"))
    rows = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()
    assert result["quarantine"] == str(tmp_path / "out" / "quarantine.csv")
    assert len(rows) == 3


def test_speakers_by_rule(emodb: Path) -> None:
    result = json.loads(scan(emodb, "--format", "json", "--speaker-from", r"([ab]\d\d)"))
    assert sorted(result["speakers"]) == ["a01", "b10"]
    unknown = json.loads(scan(emodb, "--format", "json", "--speaker-from", "none"))
    assert list(unknown["speakers"]) == ["unknown"]


def test_everything_set_aside_is_a_result_not_a_crash(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    assert "silent" in scan(tmp_path)


def test_mistakes_of_users(emodb: Path, tmp_path: Path) -> None:
    with pytest.raises(NoAudioError):
        scan(tmp_path / "missing")
    with pytest.raises(UsageError, match="Did you mean 'emodb'"):
        scan(emodb, "--corpus", "emdb")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        scan(emodb, "--out", tmp_path / "file" / "below")
