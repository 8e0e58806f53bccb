"""The pre-flight check: what it finds on a good machine, and that each kind of trouble is named with its fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from fedser.commands import checks
from fedser.commands.checks import Status
from fedser.commands.doctor import doctor

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in checks.TELEMETRY.items():
        monkeypatch.setenv(name, value)


def test_this_machine_passes_and_json_is_one_object() -> None:
    result = CliRunner().invoke(app, ["--format", "json"])
    answer = json.loads(result.stdout)
    problems = [row for row in answer["checks"] if row["status"] == "problem"]
    assert problems == []
    assert answer["ok"] is True
    assert result.exit_code == 0
    assert [row["check"] for row in answer["checks"]] == list(checks.CHECKS)


def test_a_problem_gives_exit_code_one_and_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "1")
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "problem  telemetry" in result.stdout
    assert "→ Set FLWR_TELEMETRY_ENABLED=0" in result.stdout
    assert "1 to mend" in result.stdout


def test_telemetry_that_nobody_switched_off_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.telemetry()[0] is Status.ok
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    status, found, fix = checks.telemetry()
    assert status is Status.problem
    assert "RAY_USAGE_STATS_ENABLED" in found
    assert "FLWR" not in fix


def test_the_cache_is_checked_where_it_would_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path / "new" / "cache"))
    assert checks.cache()[0] is Status.ok
    assert not (tmp_path / "new").exists()  # a check leaves nothing behind
    (tmp_path / "new" / "cache").mkdir(parents=True, mode=0o700)
    (tmp_path / "new" / "cache").chmod(0o755)
    status, found, fix = checks.cache()
    assert (status, fix) == (Status.warning, f"chmod 700 '{tmp_path / 'new' / 'cache'}'")
    assert "open to other users" in found
    (tmp_path / "new" / "cache").chmod(0o700)
    assert checks.cache()[0] is Status.ok
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path / "file" / "cache"))
    assert checks.cache()[0] is Status.problem


def test_versions_that_are_no_pair_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers: dict[str, str | None] = {"torch": "2.11.0", "torchaudio": "2.10.1", "flwr": "1.42.0"}
    monkeypatch.setattr(checks, "_installed", numbers.get)
    status, found, fix = checks.torch_pair()
    assert status is Status.problem
    assert "2.10.1" in found
    assert "torchaudio>=2.11" in fix
    assert checks.flower()[0] is Status.problem
    numbers["torchaudio"], numbers["flwr"] = None, None
    assert "missing" in checks.torch_pair()[1]
    assert "missing" in checks.flower()[1]


def test_more_threads_than_cores_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4096")
    assert checks.cores()[0] is Status.warning
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert checks.cores()[0] is Status.ok


def test_a_clock_in_the_past_and_a_full_disk_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.clock()[0] is Status.ok
    monkeypatch.setattr(checks.time, "time", lambda: 1e9)
    status, found, _ = checks.clock()
    assert status is Status.problem
    assert found.startswith("2001-09-09")
    monkeypatch.setattr(checks, "_TOO_LITTLE", 1e18)
    assert checks.disk()[0] is Status.problem


def test_a_check_that_breaks_down_is_a_problem_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[Status, str, str]:
        raise OSError("no such library")

    table: dict[str, Callable[[], tuple[Status, str, str]]] = {"broken": broken}
    monkeypatch.setattr(checks, "CHECKS", table)
    result = CliRunner().invoke(app, ["--format", "json"])
    assert result.exit_code == 1
    row = json.loads(result.stdout)["checks"][0]
    assert row["status"] == "problem"
    assert "no such library" in row["found"]
    assert row["fix"]


def test_missing_extras_are_information_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "EXTRAS", {"none": ("package_that_is_not_there", "nothing")})
    status, found, fix = checks.extras()
    assert status is Status.info
    assert "nothing" in found
    assert "fedser[none]" in fix
