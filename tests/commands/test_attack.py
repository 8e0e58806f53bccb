"""``fedser attack``: what it prints, and the exit code that the verdict makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedser.attacks import run as lab
from fedser.cli import app
from fedser.errors import BarError, ControlError

CONFIG = Path(__file__).parents[2] / "configs" / "attack" / "quick.yaml"


def call(monkeypatch: pytest.MonkeyPatch, out: Path, failed: list[str], over: list[str], *words: str) -> Any:
    (out / "summary.md").write_text("# the tables\n")

    def run(settings: Any, folder: Path, *, command: str) -> dict[str, Any]:
        assert settings.seed == 3
        assert settings.attacks == ("imprint",)
        paths = {"summary": str(folder / "summary.md"), "report": str(folder / "report.html")}
        return {"controls_failed": failed, "bars_missed": over, "seconds": 1.0, **paths}

    monkeypatch.setattr(lab, "run", run)
    given = ["attack", str(CONFIG), "attacks=imprint", "--seed", "3", "--out", str(out), *words]
    return CliRunner().invoke(app, given)


def test_all_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = call(monkeypatch, tmp_path, [], [])
    assert shown.exit_code == 0
    assert shown.stdout == "# the tables\n"
    told = json.loads(call(monkeypatch, tmp_path, [], [], "--format", "json").stdout)
    assert told["bars_missed"] == told["controls_failed"] == []


def test_a_missed_bar_and_a_failed_control_have_codes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missed = call(monkeypatch, tmp_path, [], ["gender: UAR 0.6, at most 0.55 asked for"]).exception
    assert isinstance(missed, BarError)
    assert missed.exit_code == 50
    vain = call(monkeypatch, tmp_path, ["gender: UAR 0.5"], ["gender: UAR 0.6"]).exception
    assert isinstance(vain, ControlError)  # a run that proves nothing says nothing about bars
    assert vain.exit_code == 51
    assert "0.5" in str(vain)
