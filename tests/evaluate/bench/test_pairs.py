from __future__ import annotations

import pytest

from fedser.errors import ConfigError, TooLittleDataError
from fedser.evaluate.bench.pairs import Pair, resolve, shared

NAMES = ("a", "b", "c")


def told(*texts: str) -> list[str]:
    return [f"{pair.source}:{pair.target}" for pair in resolve(texts, NAMES)]


def test_pairs_from_words() -> None:
    assert told("a:b", "a+c:b") == ["a:b", "a+c:b"]
    assert told("all") == ["a:b", "a:c", "b:a", "b:c", "c:a", "c:b"]
    assert told("leave_one_out") == ["b+c:a", "a+c:b", "a+b:c"]
    assert told("a:b", "a:b") == ["a:b"]
    assert len(told("all", "leave_one_out")) == 9


@pytest.mark.parametrize("text", ["a", "a:", ":b", "a:x", "a+x:b", "a+a:b", "a+b:b", "a+:b"])
def test_a_pair_that_does_not_fit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve([text], NAMES)
    assert error.value.hint


def test_names_that_cannot_stand_in_a_pair_are_refused() -> None:
    with pytest.raises(ConfigError, match="name of a corpus"):
        resolve(["all"], ["a+b", "c"])
    with pytest.raises(ConfigError, match="no pair"):
        resolve(["all"], ["a"])


def test_classes_are_those_of_all_corpora() -> None:
    emotions = {"a": ["anger", "fear", None], "b": ["fear", "anger", "joy"], "c": ["fear", "joy"]}
    assert shared(emotions, Pair(("a",), "b")) == ("anger", "fear")
    with pytest.raises(TooLittleDataError, match="share 1"):
        shared(emotions, Pair(("a", "b"), "c"))
