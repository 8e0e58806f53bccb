from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.guard import CANDIDATES
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator
from fedser.errors import ConfigError, TooLittleDataError
from fedser.evaluate.bench import contest as contests
from fedser.evaluate.bench.contest import Answers, Contest, Labelled
from fedser.evaluate.bench.supervised import leave_one_speaker_out
from fedser.evaluate.protocols import Query, View
from fedser.evaluate.source import train_source
from fedser.models import ModelSettings, fit_logistic
from fedser.train import TrainSettings

CLASSES = ("anger", "neutral", "sadness")
MODEL, TRAIN = ModelSettings(hidden=16, bottleneck=8), TrainSettings(epochs=4, early_stop=False)


def corpus(seed: int, shift: float = 0.0) -> Labelled:
    draw = generator("contest", seed)
    y = torch.arange(60) % 3
    x = 1.5 * torch.eye(8)[y] + 0.7 * torch.randn(60, 8, generator=draw) + shift
    speakers = tuple(f"s{k // 15}" for k in range(60))
    return Labelled(x, y, speakers, SiteNormaliser.fit(x, speakers, NormalisationSettings(rule="corpus")))


@pytest.fixture(scope="module")
def contest() -> Contest:
    source = corpus(0)
    cpu = torch.device("cpu")
    models = train_source(source.x, source.y, source.speakers, CLASSES, MODEL, TRAIN, seed=0, device=cpu)
    return Contest(models, source, CLASSES, {}, Schedule(epochs=2), MODEL, TRAIN, 0)


def answered(
    contest: Contest, target: Labelled, wanted: list[tuple[str, str]], labels: torch.Tensor | None = None, **how: bool
) -> dict[tuple[str, str], Answers]:
    found = contest.run(views(target, **how), target.y if labels is None else labels, wanted)
    assert all(isinstance(own, Answers) for own in found.values())
    return found  # type: ignore[return-value]


def views(target: Labelled, *, halves: bool = False) -> list[View]:
    everything = torch.arange(60)
    if not halves:
        return [View(target.x, target.x, everything, target.speakers, {"transductive": Query(everything, target.x)})]
    parts = [(everything[:30], everything[30:]), (everything[30:], everything[:30])]
    return [
        View(
            target.x[a],
            target.x[a],
            a,
            tuple(target.speakers[i] for i in a.tolist()),
            {"inductive": Query(b, target.x[b])},
        )
        for a, b in parts
    ]


def test_a_row_is_what_adapting_by_itself_gives(contest: Contest) -> None:
    target = corpus(1, shift=0.4)
    answers = answered(contest, target, [("aad", "transductive"), ("logreg", "transductive")])
    model = adapt(contest.models.model, target.x, make("aad"), contest.schedule, seed=0).model
    expected = probabilities(model, target.x, contest.models.temperature)
    assert torch.equal(answers["aad", "transductive"].probabilities, expected)
    assert contest.models.linear is not None
    plain = contest.models.linear(target.x).softmax(1)
    assert torch.allclose(answers["logreg", "transductive"].probabilities, plain, atol=1e-6)


def test_the_guard_takes_the_candidates_models_of_the_same_cell(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, calls = corpus(1, shift=0.4), []

    def counted(*arguments: object, **more: object) -> object:
        calls.append(arguments[2].name)  # type: ignore[attr-defined]
        return adapt(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(contests, "adapt", counted)
    wanted = [(name, "inductive") for name in ("aad", "guard", "source")]
    answers = answered(contest, target, wanted, halves=True)
    assert sorted(calls) == sorted(2 * CANDIDATES)  # each once a fold, no second training
    guarded = answers["guard", "inductive"]
    assert len(guarded.chosen) == 2
    assert guarded.seconds > answers["aad", "inductive"].seconds
    rest = answered(contest, target, [(name, "inductive") for name in CANDIDATES], halves=True)
    for fold, rows in enumerate((slice(30, 60), slice(0, 30))):
        chosen = rest[guarded.chosen[fold], "inductive"].probabilities
        assert torch.equal(guarded.probabilities[rows], chosen[rows])


def test_recordings_far_from_the_sources_are_not_adapted_to(contest: Contest) -> None:
    target = corpus(1, shift=0.4)
    (view,) = views(target)
    wanted = [("guard", "transductive")]
    for raw, kept in ((view.raw, False), (view.raw + 100, True)):
        (own,) = contest.run([replace(view, raw=raw)], target.y, wanted).values()
        assert isinstance(own, Answers)
        assert not kept or own.chosen == ("source",)


def test_the_guard_sees_no_held_out_utterance(contest: Contest) -> None:
    target = corpus(1, shift=0.4)
    changed = replace(target, x=torch.cat([target.x[:30], target.x[30:] + 50]))
    wanted = [("guard", "inductive")]
    one, two = (answered(contest, own, wanted, halves=True)["guard", "inductive"] for own in (target, changed))
    assert one.chosen[0] == two.chosen[0]  # of the fold that adapts to the first half


def test_labels_reach_the_oracle_alone(contest: Contest) -> None:
    target = corpus(1)
    wanted = [(name, "transductive") for name in ("source", "aad", "guard", "logreg_self", "coral", "supervised")]
    right = answered(contest, target, wanted)
    wrong = answered(contest, target, wanted, (target.y + 1) % 3)
    for method, protocol in wanted:
        same = torch.equal(right[method, protocol].probabilities, wrong[method, protocol].probabilities)
        assert same is (method != "supervised")


def test_a_site_too_small_for_a_method_keeps_the_source_model(contest: Contest) -> None:
    target = corpus(1)
    one = torch.tensor([4])
    view = View(target.x[one], target.x[one], one, ("s0",), {"transductive": Query(one, target.x[one])})
    answers = contest.run([view], target.y, [("aad", "transductive"), ("source", "transductive")])
    aad, source = answers.values()
    assert isinstance(aad, Answers)
    assert isinstance(source, Answers)
    assert torch.equal(aad.probabilities, source.probabilities)


def test_a_method_that_fails_takes_no_other_with_it(contest: Contest) -> None:
    wild = replace(contest, schedule=Schedule(epochs=3, learning_rate=1e30))
    target = corpus(1)
    answers = wild.run(views(target), target.y, [(name, "transductive") for name in ("aad", "logreg", "guard")])
    assert isinstance(answers["aad", "transductive"], ConfigError)
    assert isinstance(answers["logreg", "transductive"], Answers)
    guarded = answers["guard", "transductive"]
    assert isinstance(guarded, Answers)
    assert guarded.chosen == ("source",)


def test_the_oracle_by_hand() -> None:
    target = corpus(1)
    labels = target.y.clone()
    labels[3] = -1
    answers = leave_one_speaker_out(target.x, labels, target.speakers, CLASSES)
    held = torch.tensor([speaker == "s1" for speaker in target.speakers])
    seen = ~held & (labels >= 0)
    expected = fit_logistic(target.x[seen], labels[seen], CLASSES)(target.x[held]).softmax(1)
    assert torch.allclose(answers[held], expected, atol=1e-6)


def test_the_oracle_where_the_others_show_one_emotion() -> None:
    target = corpus(1)
    labels = torch.tensor([1] * 30 + [-1] * 29 + [0])
    answers = leave_one_speaker_out(target.x, labels, ("a",) * 30 + ("b",) * 30, CLASSES)
    assert torch.equal(answers[:30], torch.eye(3)[[0]].expand(30, 3))
    assert torch.equal(answers[30:], torch.eye(3)[[1]].expand(30, 3))


@pytest.mark.parametrize("speakers", [("a",) * 60, ("a", None) * 30])
def test_the_oracle_needs_speakers(speakers: tuple[str | None, ...]) -> None:
    target = corpus(1)
    with pytest.raises(TooLittleDataError):
        leave_one_speaker_out(target.x, target.y, speakers, CLASSES)
