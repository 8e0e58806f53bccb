"""``fedser weights``: into the store, and what is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedser.commands.weights import app
from fedser.errors import ConfigError, FedserError, UsageError


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    if isinstance(result.exception, FedserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fetch_a_file_and_list_the_store(tiny_encoder, tmp_path, monkeypatch):
    known = tiny_encoder("wavlm")
    monkeypatch.setenv("FEDSER_WEIGHTS", str(tmp_path / "store"))
    assert "empty" in run("list")
    words = ("fetch", tmp_path / "wavlm.safetensors", "--encoder", "wavlm", "--size", "tiny")
    told = json.loads(run(*words, "--format", "json"))
    assert told["weights"] == known.weights
    assert Path(told["file"]).is_file()
    assert known.weights in run(*words)
    assert json.loads(run("list", "--format", "json"))["weights"] == [known.weights]
    assert known.weights in run("list")


def test_a_file_needs_its_encoders_name(tmp_path):
    with pytest.raises(UsageError, match="which encoder"):
        run("fetch", tmp_path / "some.pth")
    with pytest.raises(ConfigError, match="no pretrained weights"):
        run("fetch", tmp_path / "some.pth", "--encoder", "hubert")
