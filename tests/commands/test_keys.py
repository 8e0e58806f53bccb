from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedser.commands.keys import app
from fedser.errors import KeyFileError


def test_create_and_show_agree(tmp_path: Path) -> None:
    path = tmp_path / "provider"
    made = CliRunner().invoke(app, ["create", str(path), "--format", "json"])
    assert made.exit_code == 0
    told = json.loads(made.stdout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Path(told["public"]).read_text().strip() == told["signer"]
    for half in (told["private"], told["public"]):
        assert CliRunner().invoke(app, ["show", half]).stdout.strip() == told["signer"]
    text = path.read_text()
    assert "PRIVATE KEY" in text
    assert text.splitlines()[1] not in made.output


def test_without_a_name_the_users_own_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert CliRunner().invoke(app, ["create"]).exit_code == 0
    assert (tmp_path / "fedser" / "signing-key").is_file()
    again = CliRunner().invoke(app, ["create"])
    assert isinstance(again.exception, KeyFileError)
