"""The registry and the methods that have nothing to compute."""

from __future__ import annotations

import pytest

from fedser.adapt import METHODS, make
from fedser.errors import ConfigError, UsageError


def test_names_agree_with_the_classes():
    assert all(kind.name == name for name, kind in METHODS.items())
    assert all(make(name).name == name for name in METHODS)


def test_near_miss():
    with pytest.raises(UsageError, match="Did you mean 'ecan'"):
        make("ekan")
    with pytest.raises(UsageError) as caught:
        make("os.system")
    assert "ecan" in caught.value.hint


def test_options_are_validated():
    with pytest.raises(ConfigError, match="did you mean 'temperature'"):
        make("ecan", {"temprature": 0.1})
    with pytest.raises(ConfigError, match="temperature"):
        make("ecan", {"temperature": 0})
    with pytest.raises(ConfigError, match="unknown key"):
        make("source", {"temperature": 0.1})
