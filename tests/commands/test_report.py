"""``fedser report``: makes a finished run's report once more."""

from __future__ import annotations

import json
from pathlib import Path

import typer
from typer.testing import CliRunner

from fedser.commands.report import report
from fedser.errors import UsageError

app = typer.Typer()
app.command()(report)


def test_writes_the_report_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"kind": "simulation", "name": "A study"}')
    result = CliRunner().invoke(app, [str(tmp_path), "--format", "json"])
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer == {"report": str(tmp_path / "report.html"), "figures": []}
    assert "A study" in (tmp_path / "report.html").read_text()


def test_a_folder_that_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert isinstance(result.exception, UsageError)
    assert result.exception.exit_code == 2
    assert result.stdout == ""
