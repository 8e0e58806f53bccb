from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fedser.config import validate
from fedser.errors import ConfigError, OutputError
from fedser.evaluate import bench, metrics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("second") / "other"
    plan = CorpusPlan("other", 3, 27, emotions=("anger", "neutral", "fear"), seconds=(0.5, 0.7), first=50)
    write_corpus(folder, plan, seed=6)
    return folder


def settings(speech: Path, second: Path, **changes: Any) -> bench.BenchSettings:
    values = {
        "corpora": {"tiny": str(speech), "other": str(second)},
        "methods": "source,ecan",
        "protocol": "transductive,inductive",
        "seeds": 2,
        "folds": 2,
        "schedule": {"epochs": 2},
        "train": {"epochs": 3, "early_stop": False},
        "model": {"hidden": 16, "bottleneck": 8},
    }
    return validate(bench.BenchSettings, values | changes)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def plain(table: list[dict[str, str]]) -> set[tuple[tuple[str, str], ...]]:
    """Rows without what a clock or the system decides."""
    return {tuple((k, v) for k, v in row.items() if k not in ("seconds", "peak_mb")) for row in table}


def test_a_run_fills_every_cell_and_goes_on_where_it_stopped(speech: Path, second: Path, tmp_path: Path) -> None:
    config = settings(speech, second)
    result = bench.run(config, tmp_path, jobs=1, device=CPU, command="test")
    table = rows(tmp_path)
    assert len(table) == 2 * 2 * 2 * 2  # pairs, methods, protocols, seeds
    assert {row["classes"] for row in table} == {"anger|neutral"}
    assert "tiny → other" in (tmp_path / "summary.md").read_text()
    assert bench.run(config, tmp_path, jobs=1, device=CPU, command="test")["computed"] == 0

    lines = (tmp_path / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(lines[:-3]) + lines[-3][:25])  # a crash within a line
    again = bench.run(config, tmp_path, jobs=2, device=CPU, command="test")
    assert again["computed"] == 1
    assert plain(rows(tmp_path)) == plain(table)
    assert again["uar"] == result["uar"]


def test_the_scores_are_those_of_the_confusion_matrix(speech: Path, second: Path, tmp_path: Path) -> None:
    config = settings(speech, second, pairs="tiny:other", methods="source", seeds=1, protocol="transductive")
    bench.run(config, tmp_path, jobs=1, device=CPU, command="test")
    (row,) = rows(tmp_path)
    matrix = torch.tensor(json.loads((tmp_path / "confusions.jsonl").read_text())["matrix"])
    assert int(matrix.sum()) == 18  # nine of each shared emotion
    recalls = matrix.diagonal() / matrix.sum(1)
    assert float(row["uar"]) == pytest.approx(float(recalls.mean()), abs=1e-5)
    assert float(row["war"]) == pytest.approx(float(matrix.diagonal().sum() / matrix.sum()), abs=1e-5)
    assert metrics.uar(torch.tensor([0, 1]), torch.tensor([0, 0])) == 0.5


def test_other_settings_are_refused_in_the_same_folder(speech: Path, second: Path, tmp_path: Path) -> None:
    small = {"pairs": "tiny:other", "methods": "source", "protocol": "transductive", "seeds": 1}
    bench.run(settings(speech, second, **small), tmp_path, jobs=1, device=CPU, command="test")
    with pytest.raises(OutputError, match="other settings"):
        bench.run(settings(speech, second, **small, folds=3), tmp_path, jobs=1, device=CPU, command="test")


@pytest.mark.parametrize(
    "change",
    [
        {"methods": "ecann"},
        {"pairs": "tiny:nowhere"},
        {"pairs": "tiny"},
        {"protocol": "conductive"},
        {"target_set": "some"},
        {"features": "magic"},
        {"normalisation": "none"},
    ],
)
def test_an_unknown_name_is_refused_before_any_work(speech: Path, second: Path, change: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        bench.check(settings(speech, second, **change))
    assert error.value.hint


def test_seeds_and_lists_from_the_command_line(speech: Path, second: Path) -> None:
    assert settings(speech, second, seeds=3).seeds == (0, 1, 2)
    assert settings(speech, second, seeds=[4, 9]).seeds == (4, 9)
    assert settings(speech, second, methods="source, ecan").methods == ("source", "ecan")
