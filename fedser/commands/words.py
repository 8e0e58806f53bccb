"""Words of the command line that are pairs: names with values, and settings of what is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedser.errors import UsageError

if TYPE_CHECKING:
    from fedser.audio.features import FeatureSettings
    from fedser.models import ModelSettings
    from fedser.train import TrainSettings

GROUPS = ("model.", "train.", "features.")  # a word that begins so is a setting


def pairs(given: Sequence[str], option: str, form: str) -> dict[str, str]:
    """``LEFT=RIGHT`` words as a mapping."""
    found: dict[str, str] = {}
    for word in given:
        left, separator, right = word.partition("=")
        if not (left and separator and right):
            raise UsageError(f"'{word}' after {option} does not fit.", f"Write {form}.")
        if left in found:
            raise UsageError(f"{option} names {left} twice.", "Give each name once.")
        found[left] = right
    return found


def source_settings(
    values: dict[str, Any], epochs: int | None, augment: str, changes: Sequence[str]
) -> tuple[ModelSettings, TrainSettings, FeatureSettings]:
    """Settings from the options, and from words that say more."""
    from fedser.audio.features import FeatureSettings
    from fedser.config import assign, validate
    from fedser.models import ModelSettings
    from fedser.train import TrainSettings

    kinds = [] if augment == "none" else [kind.strip() for kind in augment.split(",")]
    values["train"] = {"augment": kinds} | ({} if epochs is None else {"epochs": epochs})
    for word in changes:
        assign(values, word)
    origin = "the command line"
    return (
        validate(ModelSettings, values["model"], origin),
        validate(TrainSettings, values["train"], origin),
        validate(FeatureSettings, values["features"], origin),
    )
