"""The page names every setting with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedser.transfer import REFERENCES

PAGE = Path(__file__).parents[2] / "docs" / "transfer.md"


@pytest.mark.parametrize("name", REFERENCES)
def test_the_page_tells_the_defaults(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| (`.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    fields = REFERENCES[name].settings_type.model_fields
    assert row == ", ".join(f"`{key}` {field.default}" for key, field in fields.items())
