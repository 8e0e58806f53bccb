"""Partitions: every utterance exactly once, whatever the rule."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.audio.utterance import Utterance
from fedser.errors import ManifestError, TooLittleDataError
from fedser.evaluate.partition import PartitionSettings, partition

EMOTIONS = ("anger", "happiness", "sadness")


def corpus(speakers: dict[str, str | None], each: int = 9) -> list[Utterance]:
    return [
        Utterance(Path(f"{speaker}{number}.wav"), EMOTIONS[number % 3], speaker, gender)
        for speaker, gender in speakers.items()
        for number in range(each)
    ]


@given(
    by=st.sampled_from(["speaker", "dirichlet", "corpus"]),
    speakers=st.integers(1, 7),
    each=st.integers(1, 12),
    sites=st.integers(1, 6),
    alpha=st.sampled_from([0.01, 0.3, 10.0]),
    smallest=st.integers(1, 30),
)
@settings(max_examples=80, deadline=None)
def test_each_utterance_exactly_once_and_no_site_is_empty(
    by: str, speakers: int, each: int, sites: int, alpha: float, smallest: int
) -> None:
    utterances = corpus({f"s{number}": None for number in range(speakers)}, each)
    names = ["a" if number % 2 else "b" for number in range(len(utterances))]
    rule = PartitionSettings.model_validate(
        {"by": by, "sites": sites, "alpha": alpha, "smallest": smallest, "speakers": 2}
    )
    made = partition(utterances, names, rule)
    assert sorted(place for site in made for place in site.index) == list(range(len(utterances)))
    assert all(site.index for site in made)
    assert len(made) == 1 or all(len(site.index) >= smallest for site in made)
    assert made == partition(utterances, names, rule)


def test_speakers_stay_whole_and_genders_are_mixed() -> None:
    utterances = corpus({"f1": "female", "f2": "female", "f3": "female", "m1": "male", "m2": "male", "m3": "male"})
    made = partition(utterances, ["c"] * len(utterances), PartitionSettings(speakers=2))
    found = [sorted({utterances[place].speaker for place in site.index}) for site in made]
    assert found == [["f1", "m1"], ["f2", "m2"], ["f3", "m3"]]
    assert [site.name for site in made] == ["site-1", "site-2", "site-3"]


def test_a_last_group_may_be_smaller() -> None:
    utterances = corpus({"a": None, "b": None, "c": None})
    made = partition(utterances, ["c"] * len(utterances), PartitionSettings(speakers=2))
    assert [len(site.index) for site in made] == [18, 9]


def test_the_same_speaker_name_in_two_corpora_is_two_speakers() -> None:
    utterances = corpus({"a": None}) * 2
    made = partition(utterances, ["x"] * 9 + ["y"] * 9, PartitionSettings(speakers=1))
    assert [site.index for site in made] == [tuple(range(9)), tuple(range(9, 18))]


def test_dirichlet_with_a_small_alpha_gives_sites_few_emotions() -> None:
    utterances = corpus({"a": None}, each=300)
    skewed, even = (
        partition(utterances, ["c"] * 300, PartitionSettings(by="dirichlet", sites=3, alpha=alpha, smallest=1))
        for alpha in (0.05, 1000.0)
    )

    def largest_share(sites: tuple) -> float:
        shares = []
        for site in sites:
            found = [utterances[place].emotion for place in site.index]
            shares.append(max(found.count(emotion) for emotion in EMOTIONS) / len(found))
        return sum(shares) / len(shares)

    assert largest_share(skewed) > 0.7
    assert largest_share(even) < 0.4


def test_the_manifest_column() -> None:
    utterances = [Utterance(Path(f"{n}.wav"), site="north" if n < 8 else "south") for n in range(16)]
    made = partition(utterances, ["c"] * 16, PartitionSettings(by="site"))
    assert [(site.name, len(site.index)) for site in made] == [("north", 8), ("south", 8)]
    with pytest.raises(ManifestError, match="no site"):
        partition([*utterances, Utterance(Path("x.wav"))], ["c"] * 17, PartitionSettings(by="site"))


def test_what_cannot_be_spread() -> None:
    with pytest.raises(TooLittleDataError, match="no target utterance"):
        partition([], [], PartitionSettings())
    with pytest.raises(TooLittleDataError, match="no speaker"):
        partition([Utterance(Path("x.wav"))], ["c"], PartitionSettings())
