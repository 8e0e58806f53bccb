from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.utterance import Utterance
from fedser.evaluate.bench import target_sets

EMOTIONS = ("anger", "neutral", "sadness", "surprise")
KNOWN = ("anger", "neutral", "sadness")
DRAWN = tuple(kind for kind in target_sets.TARGET_SETS if kind != "nonspeech")


def corpus(speakers: int = 4, each: int = 33) -> SpeechData:
    utterances = tuple(
        Utterance(Path(f"{s}-{k}.wav"), emotion=EMOTIONS[k % 4], speaker=f"s{s}")
        for s in range(speakers)
        for k in range(each)
    )
    return SpeechData("made-up", utterances, torch.zeros(len(utterances), 2), FeatureSettings())


@pytest.mark.parametrize("kind", DRAWN)
def test_what_is_drawn(kind: str) -> None:
    drawn = target_sets.draw(corpus(), kind, KNOWN, seed=3)
    emotions = list(drawn.data.emotions)
    assert ("surprise" in emotions) is (kind == "unfiltered")
    assert (drawn.sites is not None) is (kind == "small")
    if kind in ("all", "telephone"):
        assert len(emotions) == sum(e in KNOWN for e in corpus().emotions)
    if kind == "unfiltered":
        assert len(emotions) == len(corpus())
    if kind == "two_emotions":
        assert set(emotions) == {"neutral", "anger"}
    if kind == "neutral70":
        assert emotions.count("neutral") / len(emotions) == pytest.approx(0.7, abs=0.02)
    if kind == "dirichlet":
        assert len(emotions) == 4 * target_sets.PER_SPEAKER
    again = target_sets.draw(corpus(), kind, KNOWN, seed=3)
    assert [u.path for u in drawn.data.utterances] == [u.path for u in again.data.utterances]


def test_small_sites_hold_ten_utterances_of_one_speaker() -> None:
    drawn = target_sets.draw(corpus(speakers=6), "small", KNOWN, seed=0)
    assert drawn.sites is not None
    assert sorted(row for site in drawn.sites for row in site) == list(range(len(drawn.data)))
    for site in drawn.sites:
        assert len(site) == target_sets.SITE
        assert len({drawn.data.speakers[row] for row in site}) == 1
    assert len(drawn.sites) == 12  # of each speaker's 25 known utterances two sites
    many = target_sets.draw(corpus(speakers=30), "small", KNOWN, seed=0)
    assert many.sites is not None
    assert len(many.sites) == target_sets.SITES
    tiny = target_sets.draw(corpus(speakers=2, each=8), "small", KNOWN, seed=0)
    assert tiny.sites is not None
    assert [len(site) for site in tiny.sites] == [6, 6]


def test_utterances_without_an_emotion_are_not_unknown() -> None:
    data = corpus()
    blank = SpeechData("b", (Utterance(Path("x.wav")), *data.utterances[1:]), data.raw, data.features)
    assert len(target_sets.draw(blank, "unfiltered", KNOWN, seed=0).data) == len(data) - 1


def test_sets_that_need_emotions_say_so() -> None:
    assert target_sets.obstacle("two_emotions", ("anger", "fear")) == "neutral not among the shared emotions"
    assert target_sets.obstacle("neutral70", ("anger", "neutral")) is None
    assert target_sets.obstacle("all", ("anger", "fear")) is None
