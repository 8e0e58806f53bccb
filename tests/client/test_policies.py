"""The policy's file: every key explained, written once, never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fedser_client import policies

from fedser.errors import ConfigError
from fedser.federation.policy import Policy


def test_the_default_file_is_the_default_policy(folder: Any) -> None:
    path = policies.place(folder, None)
    assert policies.read(path) == Policy()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_key_stands_under_a_comment_that_explains_it() -> None:
    text = policies.default_text()
    assert set(yaml.safe_load(text)) == set(Policy.model_fields)
    for paragraph in text.split("\n\n")[1:]:
        lines = paragraph.strip().splitlines()
        comments = [line for line in lines if line.startswith("#")]
        assert sum(len(line) for line in comments) > 20, paragraph
        assert lines[0].startswith("# ")
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_policy_that_is_there_is_never_overwritten(folder: Any) -> None:
    path = policies.place(folder, None)
    path.write_text("leave: head\n")
    assert policies.place(folder, None) == path
    assert path.read_text() == "leave: head\n"
    assert policies.read(path).leave == "head"


def test_a_named_policy_must_be_there_and_fit(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        policies.place(folder, tmp_path / "none.yaml")
    assert not folder.file("policy.yaml").exists()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("leaves: all\n")
    with pytest.raises(ConfigError, match="did you mean 'leave'"):
        policies.read(policies.place(folder, wrong))
