"""The shipped recipes through the command line, cut down by overrides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedser.cli import app
from fedser.config import load
from fedser.errors import ConfigError
from fedser.evaluate.bench import BenchSettings, check
from fedser.evaluate.bench.federated_settings import FederatedBenchSettings
from fedser.evaluate.bench.federated_settings import check as check_federated

RECIPES = Path(__file__).parents[3] / "configs" / "bench"
QUICK = ("seeds=1", "train.epochs=2", "train.early_stop=false", "train.folds=2", "model.hidden=8", "model.bottleneck=4")


def fedser(*words: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, words), "--format", "json"])
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


@pytest.mark.parametrize("name", ["cross_corpus", "hard", "library"])
def test_recipes_fit(name: str) -> None:
    assert check(load(BenchSettings, RECIPES / f"{name}.yaml", ["corpora.a=/a", "corpora.b=/b"]))


def test_the_federated_recipe_fits_and_is_not_taken_for_another() -> None:
    place = RECIPES / "federated.yaml"
    assert check_federated(load(FederatedBenchSettings, place, ["corpora.a=/a", "corpora.b=/b"]))
    with pytest.raises(ConfigError, match="partition"):
        load(BenchSettings, place)


def test_every_axis_can_be_cut_down(speech: Path, second: Path, tmp_path: Path) -> None:
    told = fedser(
        *("bench", RECIPES / "cross_corpus.yaml", f"corpora.tiny={speech}", f"corpora.other={second}", *QUICK),
        *("pairs=tiny:other", "methods=source,logreg", "normalisation=corpus", "protocol=inductive", "folds=2"),
        *("target_set=all", "--out", tmp_path),
    )
    assert set(told["uar"]) == {f"functionals/all/inductive/corpus/{name}" for name in ("source", "logreg")}


def test_a_federated_benchmark(speech: Path, second: Path, tmp_path: Path) -> None:
    told = fedser(
        *("bench", RECIPES / "federated.yaml", "--federated", f"corpora.tiny={speech}", f"corpora.other={second}"),
        *(
            "pairs=other:tiny",
            "partition=speaker2",
            "setting=source,personal",
            *QUICK,
            "schedule.steps=10",
            "federation.rounds=2",
            "federation.student.steps=20",
        ),
        *("--out", tmp_path),
    )
    assert set(told["uar"]) == {f"functionals/auto/fedser/speaker2/{name}" for name in ("source", "personal")}
