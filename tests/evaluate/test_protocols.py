from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.errors import TooLittleDataError
from fedser.evaluate import protocols
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


RULE = NormalisationSettings(rule="speaker")


def answers(data: SpeechData, protocol: str, model: torch.nn.Module) -> torch.Tensor:
    """Logits [N, C] that one unadapted model gives under a protocol."""
    if protocol == "transductive":
        views = [protocols.transductive(data, RULE)]
    else:
        views = protocols.inductive(data, RULE, ["inductive", "inductive_causal"], folds=3, seed=0)
    joined = torch.full((len(data), 3), torch.nan)
    for view in views:
        query = view.queries[protocol]
        joined[query.rows] = model(query.x).detach()
    return joined


def classifier() -> EmotionClassifier:
    model = EmotionClassifier(ModelSettings(hidden=16, bottleneck=8), (8,), CLASSES)
    initialise(model, generator("model", 0))
    return model.eval()


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


def test_views_ask_about_every_utterance_once_and_show_no_held_out_one() -> None:
    data = speech()
    views = protocols.inductive(data, RULE, ["inductive"], folds=3, seed=1)
    asked = torch.cat([view.queries["inductive"].rows for view in views])
    assert sorted(asked.tolist()) == list(range(len(data)))
    for view in views:
        assert not set(view.rows.tolist()) & set(view.queries["inductive"].rows.tolist())
        assert view.speakers == tuple(data.speakers[row] for row in view.rows.tolist())
        assert list(view.queries) == ["inductive"]
    whole = protocols.transductive(data, RULE)
    assert whole.x is whole.queries["transductive"].x


def test_a_site_is_normalised_by_its_own_utterances() -> None:
    data = speech()
    site = protocols.transductive(data, NormalisationSettings(rule="corpus"), rows=[3, 5, 8, 20])
    own = data.raw[[3, 5, 8, 20]].double()
    expected = ((own - own.mean(0)) / own.std(0, correction=0)).clamp(-5, 5).float()
    assert torch.allclose(site.x, expected, atol=1e-5)
    assert site.rows.tolist() == [3, 5, 8, 20]


def test_inductive_answers_do_not_see_the_other_held_out_utterances() -> None:
    data, model = speech(), classifier()
    held = protocols.speaker_folds(data.speakers, 3, seed=0)[0]
    row, other = int(held[0]), int(held[-1])
    changed = data.raw.clone()
    changed[other] += 100.0
    altered = replace(data, raw=changed)
    plain, after = answers(data, "inductive", model), answers(altered, "inductive", model)
    assert torch.equal(plain[row], after[row])
    same_speaker = next(i for i in held.tolist() if data.speakers[i] == data.speakers[other] and i != other)
    plain, after = answers(data, "transductive", model), answers(altered, "transductive", model)
    assert not torch.equal(plain[same_speaker], after[same_speaker])


def test_inductive_source_equals_a_calculation_by_hand() -> None:
    data, model = speech(), classifier()
    outcome = answers(data, "inductive", model)
    for held in protocols.speaker_folds(data.speakers, 3, seed=0):
        seen = torch.ones(len(data), dtype=torch.bool)
        seen[held] = False
        mean, std = data.raw[seen].double().mean(0), data.raw[seen].double().std(0, correction=0)
        x = ((data.raw[held] - mean) / std).clamp(-5, 5).float()
        assert torch.allclose(outcome[held], model(x), atol=1e-4)


def test_causal_answers_do_not_depend_on_what_comes_later() -> None:
    data, model = speech(), classifier()
    first = answers(data, "inductive_causal", model)
    assert bool(first.isfinite().all())
    assert not torch.allclose(first, answers(data, "inductive", model))
    view = protocols.inductive(data, RULE, ["inductive_causal"], folds=3, seed=0)[0]
    arrival = view.queries["inductive_causal"].rows
    changed = data.raw.clone()
    changed[arrival[-1]] += 100.0  # the last one to arrive
    altered = answers(replace(data, raw=changed), "inductive_causal", model)
    assert torch.equal(first[arrival[:-1]], altered[arrival[:-1]])
