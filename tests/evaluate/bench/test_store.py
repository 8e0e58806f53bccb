from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedser.errors import OutputError
from fedser.evaluate.bench.store import COLUMNS, Store, dense, key_of

COUNTS = {"s1": [(0, 0, 3), (1, 0, 2)], "s,2": [(1, 1, 4)]}


def row(method: str) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(COLUMNS, "x")
    return values | {"method": method, "seed": 0, "classes": "anger|neutral", "uar": 0.5, "counts": dict(COUNTS)}


def test_rows_come_back_with_their_counts(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([row("ecan"), row("source")])
    again = Store(tmp_path)
    assert again.rows == store.rows
    assert again.counts == {key_of(row(name)): COUNTS for name in ("ecan", "source")}
    assert dense(COUNTS, 2) == [[3, 0], [2, 4]]


@pytest.mark.parametrize("name", ["results.csv", "confusions.jsonl"])
def test_a_line_that_a_crash_cut_off_is_not_finished(tmp_path: Path, name: str) -> None:
    Store(tmp_path).add([row("ecan"), row("source"), row("aad")])
    whole = (tmp_path / name).read_text()
    (tmp_path / name).write_text(whole[:-20])
    store = Store(tmp_path)
    assert [key.method for key in store.rows] == ["ecan", "source"]
    store.add([row("aad")])
    assert (tmp_path / name).read_text() == whole


def test_another_versions_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("source,target\na,b\n")
    with pytest.raises(OutputError, match="another version"):
        Store(tmp_path)
