from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedser.adapt import make
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.errors import TooLittleDataError
from fedser.evaluate import protocols
from fedser.evaluate.source import SourceModel
from fedser.models import EmotionClassifier, ModelSettings, initialise

CLASSES = ("anger", "neutral", "sadness")


def speech(speakers: int = 6, each: int = 12, *, seed: int = 0) -> SpeechData:
    """Made-up features: an emotion is a direction, a speaker an offset."""
    draw = generator("speech", seed)
    emotion = torch.randn(3, 8, generator=draw)
    utterances, rows = [], []
    for s in range(speakers):
        offset = torch.randn(8, generator=draw)
        for k in range(each):
            utterances.append(Utterance(Path(f"{s}-{k}.wav"), emotion=CLASSES[k % 3], speaker=f"s{s}"))
            rows.append(emotion[k % 3] + offset + 0.3 * torch.randn(8, generator=draw))
    return SpeechData("made-up", tuple(utterances), torch.stack(rows), FeatureSettings())


def models() -> SourceModel:
    model = EmotionClassifier(ModelSettings(hidden=16, bottleneck=8), (8,), CLASSES)
    initialise(model, generator("model", 0))
    return SourceModel(model.eval(), None, 1.5)


def run(data: SpeechData, *wanted: str) -> dict[str, protocols.Outcome]:
    rule = NormalisationSettings(rule="speaker")
    return protocols.evaluate(models(), data, make("source"), None, rule, wanted, folds=3, seed=0)


def test_folds_hold_whole_speakers_and_every_utterance_once() -> None:
    speakers = [f"s{k % 7}" for k in range(50)]
    folds = protocols.speaker_folds(speakers, 3, seed=1)
    assert sorted(torch.cat(folds).tolist()) == list(range(50))
    for fold in folds:
        inside = {speakers[i] for i in fold.tolist()}
        outside = {speakers[i] for i in set(range(50)) - set(fold.tolist())}
        assert not inside & outside
    assert [f.tolist() for f in folds] != [f.tolist() for f in protocols.speaker_folds(speakers, 3, seed=2)]


def test_folds_need_two_known_speakers() -> None:
    with pytest.raises(TooLittleDataError):
        protocols.speaker_folds(["a", "a"], 3, seed=0)
    with pytest.raises(TooLittleDataError):
        protocols.speaker_folds(["a", None, "b"], 3, seed=0)


def test_inductive_answers_do_not_see_the_other_held_out_utterances() -> None:
    data = speech()
    held = protocols.speaker_folds(data.speakers, 3, seed=0)[0]
    row, other = int(held[0]), int(held[-1])
    changed = data.raw.clone()
    changed[other] += 100.0
    altered = replace(data, raw=changed)
    plain, after = run(data, "inductive", "transductive"), run(altered, "inductive", "transductive")
    assert torch.equal(plain["inductive"].probabilities[row], after["inductive"].probabilities[row])
    same_speaker = next(i for i in held.tolist() if data.speakers[i] == data.speakers[other] and i != other)
    assert not torch.equal(
        plain["transductive"].probabilities[same_speaker], after["transductive"].probabilities[same_speaker]
    )


def test_inductive_source_equals_a_calculation_by_hand() -> None:
    data = speech()
    outcome = run(data, "inductive")["inductive"].probabilities
    source = models()
    for held in protocols.speaker_folds(data.speakers, 3, seed=0):
        seen = torch.ones(len(data), dtype=torch.bool)
        seen[held] = False
        mean, std = data.raw[seen].double().mean(0), data.raw[seen].double().std(0, correction=0)
        x = ((data.raw[held] - mean) / std).clamp(-5, 5).float()
        expected = (source.model(x) / 1.5).softmax(1)
        assert torch.allclose(outcome[held], expected, atol=1e-4)


def test_causal_answers_do_not_depend_on_what_comes_later() -> None:
    data = speech()
    first = run(data, "inductive_causal")["inductive_causal"].probabilities
    assert first.sum(1).allclose(torch.ones(len(data)))
    assert not torch.allclose(first, run(data, "inductive")["inductive"].probabilities)


@pytest.mark.parametrize("kind", protocols.TARGET_SETS)
def test_target_sets(kind: str) -> None:
    data = speech(speakers=4, each=30)
    subset = protocols.target_subset(data, kind, seed=3)
    emotions = list(subset.emotions)
    if kind == "all":
        assert len(subset) == len(data)
    if kind == "two_emotions":
        assert set(emotions) == {"neutral", "anger"}
    if kind == "neutral70":
        assert emotions.count("neutral") / len(emotions) == pytest.approx(0.7, abs=0.02)
    if kind == "dirichlet":
        assert len(subset) == 4 * protocols.PER_SPEAKER
    assert [u.path for u in subset.utterances] == [
        u.path for u in protocols.target_subset(data, kind, seed=3).utterances
    ]


def test_shared_classes() -> None:
    data = speech()
    assert protocols.shared_classes(data, data) == CLASSES
    with pytest.raises(TooLittleDataError, match="share 1"):
        protocols.shared_classes(data, data.subset([0]))
