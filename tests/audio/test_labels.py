"""The vocabulary and the words that lead to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedser.audio import labels
from fedser.errors import UnknownLabelError

HERE = Path("some/file.wav")


@pytest.mark.parametrize(
    ("written", "label"),
    [
        ("Angry", "anger"),
        (" ANGER ", "anger"),
        ("happy", "happiness"),
        ("joy", "happiness"),
        ("sad", "sadness"),
        ("Fearful", "fear"),
        ("surprised", "surprise"),
        ("neu", "neutral"),
        ("fru", "frustration"),
        ("Pleasant Surprise", "pleasant_surprise"),
        ("pleasant-surprised", "pleasant_surprise"),
        ("bored", "boredom"),
    ],
)
def test_words_lead_to_labels(written: str, label: str) -> None:
    assert labels.emotion(written, HERE) == label


def test_every_label_means_itself_and_every_word_a_label() -> None:
    assert all(labels.emotion(label, HERE) == label for label in labels.EMOTIONS)
    assert set(labels.ALIASES.values()) == set(labels.EMOTIONS)
    assert set(labels.EMOTION_WORDS) <= set(labels.ALIASES)


@pytest.mark.parametrize("own", ["calm", "boredom", "pleasant_surprise", "excitement", "frustration"])
def test_labels_that_are_often_merged_stay_apart(own: str) -> None:
    assert labels.emotion(own, HERE) == own


def test_an_unknown_label_names_the_file_the_guess_and_the_vocabulary() -> None:
    with pytest.raises(UnknownLabelError, match=r"some/file\.wav.*'angri'.*Did you mean 'angr") as caught:
        labels.emotion("angri", HERE)
    assert "boredom" in caught.value.hint
    assert caught.value.exit_code == 11


@pytest.mark.parametrize("label", ["", "xxx", "other", "W", "5"])
def test_codes_of_single_corpora_are_not_labels(label: str) -> None:
    with pytest.raises(UnknownLabelError):
        labels.emotion(label, HERE)


def test_a_mapping_translates_and_merges() -> None:
    mapping = {"Wut": "anger", "calm": "neutral"}
    assert labels.emotion("wut", HERE, mapping) == "anger"
    assert labels.emotion("Calmness", HERE, mapping) == "neutral"
    assert labels.emotion("sad", HERE, mapping) == "sadness"
    with pytest.raises(UnknownLabelError):
        labels.emotion("wut", HERE, {"wut": "rage-like"})


@pytest.mark.parametrize(
    ("folder", "label"),
    [("Angry", "anger"), ("01_sad", "sadness"), ("pleasant surprise", "pleasant_surprise"), ("calls", None),
     ("ang", None), ("2024", None)],
)  # fmt: skip
def test_folders_named_after_emotions(folder: str, label: str | None) -> None:
    assert labels.folder_emotion(folder) == label
