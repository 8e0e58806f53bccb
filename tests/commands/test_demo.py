"""``fedser demo`` on the command line; its work is tested in tests/demo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedser.commands.demo import demo
from fedser.demo import demo as library
from fedser.errors import OutputError

app = typer.Typer()
app.command()(demo)


def test_json_is_one_object_with_the_promised_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def run(out: Path, seed: int, *, seeds: int, jobs: int, command: str) -> dict[str, object]:
        asked.update(out=out, seed=seed, seeds=seeds, jobs=jobs)
        uar = {"source": 60.0, "alone": 61.0, "federated": 62.0, "personal": 63.0, "pooled": 64.0}
        return {"uar": uar, "report": str(out / "run/report.html"), "seconds": 1.0, "bundle": "b"}

    monkeypatch.setattr(library, "run", run)
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--seed", "3", "--format", "json"])
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert {"source", "alone", "federated", "personal", "pooled"} <= set(answer["uar"])
    assert answer["report"].endswith("report.html")
    assert answer["seconds"] == 1.0
    assert answer["synthetic"] is True
    assert asked == {"out": tmp_path, "seed": 3, "seeds": 3, "jobs": 1}


def test_a_foreign_folder_is_the_project_s_own_error(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    result = CliRunner().invoke(app, ["--out", str(tmp_path)])
    assert isinstance(result.exception, OutputError)


def test_a_negative_seed_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["--seed", "-1"]).exit_code == 2
