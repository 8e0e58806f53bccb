"""A study's settings, and the recipes that ship."""

from __future__ import annotations

from pathlib import Path

import pytest
from fedser_server.settings import StudySettings

from fedser.config import load
from fedser.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "configs" / "study").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=[recipe.stem for recipe in RECIPES])
def test_the_recipes_fit_and_say_how_they_are_started(recipe: Path) -> None:
    assert f"fedser-server start --config configs/study/{recipe.name}" in recipe.read_text()
    assert load(StudySettings, recipe, ["rounds=7"]).rounds == 7


def test_more_than_half_of_the_sites_are_the_quorum() -> None:
    assert [StudySettings(sites=n).least for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    assert StudySettings(sites=5, quorum=2).least == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("quorum=4", "quorum"),
        ("rounds=-1", "rounds"),
        ("largest_norm=1e9", "largest_norm"),
        ("aggregation.rule=average", "rule"),
        ("patience=1", "patience"),
        ("methods=ecan", "methods"),
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load(StudySettings, None, ["sites=3", override])


def test_who_and_when_may_change_within_a_study_and_what_is_computed_may_not() -> None:
    before = StudySettings()
    same = ("sites=9", "quorum=1", "deadline=5", "patience=99", "lifetime=999")
    for override in same:
        assert load(StudySettings, None, [override]).science() == before.science()
    for override in ("seed=1", "rounds=6", "encoding=i8", "personal=0.1", "aggregation.rule=median", "utterances=9"):
        assert load(StudySettings, None, [override]).science() != before.science()
