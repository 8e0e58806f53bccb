from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedser.config import Settings, load, validate
from fedser.errors import ConfigError


class Inner(Settings):
    rate: float = 0.1


class Outer(Settings):
    rounds: int = 3
    inner: Inner = Inner()


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_values_of_the_file_then_of_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "rounds: 5\n")
    assert load(Outer, path) == Outer(rounds=5)
    assert load(Outer, path, ["rounds=7", "inner.rate=0.5"]) == Outer(rounds=7, inner=Inner(rate=0.5))


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'round'.*did you mean 'rounds'"):
        load(Outer, write(tmp_path, "round: 5\n"))
    with pytest.raises(ConfigError, match=r"unknown key 'inner\.rat'.*'rate'"):
        load(Outer, write(tmp_path, "{}"), ["inner.rat=1"])


def test_a_wrong_value_names_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'rounds'"):
        load(Outer, write(tmp_path, "rounds: many\n"))


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00", "!!python/object:os.system {}"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(Outer, write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing.yaml"):
        load(Outer, tmp_path / "missing.yaml")


@pytest.mark.parametrize("override", ["rounds", "=3", "rounds.deep=3", "rounds=[1"])
def test_a_broken_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError):
        load(Outer, write(tmp_path, "rounds: 1\n"), [override])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_no_value_raises_anything_but_a_config_error(value: object) -> None:
    try:
        validate(Outer, value)
    except ConfigError as error:
        assert str(error)
        assert error.hint


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().rounds = 9  # type: ignore[misc]
