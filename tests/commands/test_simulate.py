"""``fedser simulate`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedser.cli import app
from fedser.config import load
from fedser.errors import ConfigError
from fedser.evaluate.simulation_settings import SimulationSettings

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "simulate").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_and_name_their_launch_command(recipe: Path) -> None:
    settings = load(SimulationSettings, recipe)
    assert settings.source.corpora or settings.source.bundle is None
    head = recipe.read_text(encoding="utf-8").split("\nname:")[0]
    assert f"fedser simulate configs/simulate/{recipe.name}" in head


def test_an_unknown_key_is_refused_with_the_nearest_one(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", str(RECIPES[0]), "federation.round=3", "--out", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'rounds'" in str(result.exception)


def test_a_missing_corpus_is_an_error_of_ours(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", str(RECIPES[0]), "--out", str(tmp_path)])
    assert result.exception is not None
    assert "corpora" in str(result.exception)


@pytest.mark.corpora
def test_real_speech_from_the_command_line(corpora: Path, tmp_path: Path) -> None:
    recipe = next(path for path in RECIPES if path.stem == "emodb_to_emovo")
    arguments = [
        "simulate", str(recipe), f"source.corpora.emodb={corpora / 'emodb'}",
        f"target.corpora.emovo={corpora / 'emovo'}", "source.train.epochs=6", "source.train.folds=1",
        "schedule.steps=8", "federation.rounds=2", "contenders=[source,alone,federated,personal,pooled]",
        "--seed", "0", "--out", str(tmp_path), "--format", "json",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert set(told["uar"]) == {"source", "alone", "federated", "personal", "pooled"}
    assert all(value > 100 / 6 for value in told["uar"].values())
    assert Path(told["report"]).is_file()
    assert told["seconds"] > 0
