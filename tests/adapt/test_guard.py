"""The guard's rule, by calculation and on a problem where adapting is known to help or to harm."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from fedser import compute
from fedser.adapt import METHODS, guard, make, scores
from fedser.adapt.candidates import Candidate, candidate, source_of, table
from fedser.adapt.guard import CANDIDATES, DEFAULT, Choice, GuardSettings, adapt_guarded, choose, decide
from fedser.adapt.schedule import Schedule
from fedser.errors import UsageError
from fedser.models import LinearClassifier
from tests.adapt.conftest import CLASSES, SIZE, Shifted

QUICK = Schedule(epochs=3)


@pytest.fixture
def everyone(shifted: Shifted) -> list[Candidate]:
    """The source, one that knows the truth, and one that guesses."""
    guess = torch.randint(3, (len(shifted.x),), generator=compute.generator("guess"))
    found = [candidate("source", shifted.model, shifted.x)]
    for name, answers in (("right", shifted.y), ("wrong", guess)):
        p = torch.nn.functional.one_hot(answers, 3).float()
        found.append(Candidate(name, shifted.model, p, found[0].embedding))
    return found


def test_the_rule_is_the_one_that_is_written_down(shifted: Shifted, everyone: list[Candidate]) -> None:
    settings = GuardSettings(strangest=9, least=0.2, company=3, margin=0.25, most_changed=1)
    choice = choose(everyone, shifted.x, settings=settings)
    hat, base = scores.ridge_hat(shifted.x), everyone[0].embedding
    assert base is not None
    for each in everyone:
        gain = scores.predictability(each.probabilities, hat) - scores.predictability(everyone[0].probabilities, hat)
        margin = scores.prototype_margin(base, each.probabilities)
        margin -= scores.prototype_margin(base, everyone[0].probabilities)
        assert choice.scores[each.name]["worth"] == pytest.approx(gain - 0.25 * margin)
    right, wrong = (choice.scores[name]["worth"] for name in ("right", "wrong"))
    evidence = (right + 3 * wrong) / 4
    assert (choice.name == "right") == (evidence > 0.2 / math.sqrt(len(shifted.x)))
    assert f"{evidence:+.3f}" in choice.reason


def test_it_tells_the_right_answers_from_guesses(shifted: Shifted, everyone: list[Candidate]) -> None:
    settings = GuardSettings(strangest=9, most_changed=1, company=0)
    source, right, wrong = everyone
    assert choose([source, right], shifted.x, settings=settings).name == "right"
    assert choose([source, wrong], shifted.x, settings=settings).name == "source"
    assert choose([source], shifted.x, settings=settings).name == "source"
    table = choose(everyone, shifted.x, settings=settings).scores
    assert table["right"]["worth"] > table["source"]["worth"] == 0 > table["wrong"]["worth"]


def row(predictability: float, changed: float = 0.2) -> dict[str, float]:
    return {"predictability": predictability, "prototype_margin": 0.3, "changed": changed}


def test_the_others_have_a_say_and_swapped_clusters_have_none() -> None:
    source, settings = row(0.4, changed=0), GuardSettings(company=4, least=0, most_changed=0.4)
    assert decide({"source": source, "a": row(0.5), "b": row(0.39)}, 100, settings)[0] == "a"
    assert decide({"source": source, "a": row(0.5), "b": row(0.37)}, 100, settings)[0] == "source"
    assert decide({"source": source, "a": row(0.5, changed=0.41), "b": row(0.43)}, 100, settings)[0] == "b"
    name, reason = decide({"source": source, "a": row(0.5, changed=0.41)}, 100, settings)
    assert (name, reason) == ("source", "Adapting changed more than 40 % of the source's answers.")


def test_few_utterances_have_to_say_it_more_clearly() -> None:
    told, settings = {"source": row(0.4, changed=0), "a": row(0.41), "b": row(0.41)}, GuardSettings(least=0.1)
    assert decide(told, 99, settings)[0] == "source"
    assert decide(told, 101, settings)[0] == "a"
    del told["b"]
    assert decide(told, 899, settings)[0] == "source"  # a single candidate has to be three times clearer
    assert decide(told, 901, settings)[0] == "a"


@pytest.mark.parametrize(
    ("settings", "distance", "word"),
    [
        ({"fewest": 151}, None, "150 utterances are too few"),
        ({"strangest": 0.01}, None, "go together"),
        ({"strangest": 9.0}, 1.81, "unlike the source's speech"),
    ],
)
def test_reasons_to_keep_the_source_whatever_the_scores(
    shifted: Shifted, everyone: list[Candidate], settings: dict[str, float], distance: float | None, word: str
) -> None:
    choice = choose(everyone, shifted.x, distance=distance, settings=GuardSettings.model_validate(settings))
    assert choice.name == "source"
    assert word in choice.reason
    assert set(choice.scores) == {"source", "right", "wrong"}


def test_features_that_go_together_otherwise_keep_the_source(shifted: Shifted) -> None:
    noise = 0.3 * torch.randn(120, SIZE, generator=compute.generator("noise"))
    choice = adapt_guarded(shifted.model, noise, [make("shot")], QUICK, seed=0).choice
    assert choice is not None
    assert choice.name == "source"
    assert "go together" in choice.reason


def test_adaptation_under_guard(shifted: Shifted) -> None:
    done: list[str] = []
    methods = [make("source"), make("shot"), make("aad")]
    schedule = {"shot": QUICK, "aad": Schedule(epochs=2)}
    settings = GuardSettings(strangest=9, least=0)
    before = {name: value.clone() for name, value in shifted.model.state_dict().items()}
    found = adapt_guarded(
        *(shifted.model, shifted.x, methods, schedule), seed=0, settings=settings, on_method=done.append
    )
    assert done == ["shot", "aad"]
    assert [each.name for each in found.candidates] == ["source", "shot", "aad"]
    assert found.choice is not None
    chosen = next(each for each in found.candidates if each.name == found.choice.name)
    assert found.model is chosen.model
    assert not found.model.training
    epochs = {"source": 0, "shot": 3, "aad": 2}[found.choice.name]
    assert (len(found.history), found.steps) == (epochs, epochs * 2)
    assert all(torch.equal(value, before[name]) for name, value in shifted.model.state_dict().items())
    assert (
        adapt_guarded(*(shifted.model, shifted.x, methods, schedule), seed=0, settings=settings).choice == found.choice
    )


def test_without_methods_all_candidates_run(shifted: Shifted) -> None:
    found = adapt_guarded(shifted.model, shifted.x, schedule=Schedule(epochs=1), seed=0)
    assert tuple(each.name for each in found.candidates) == CANDIDATES
    assert set(CANDIDATES) <= set(METHODS)
    assert DEFAULT in METHODS


def test_one_utterance_is_not_adapted_to(shifted: Shifted) -> None:
    found = adapt_guarded(shifted.model, shifted.x[:1], seed=0)
    assert found.choice is not None
    assert (found.choice.name, found.steps) == ("source", 0)


def test_absent_classes_and_linear_candidates(shifted: Shifted) -> None:
    mask = torch.tensor([True, True, False])
    linear = LinearClassifier(SIZE, CLASSES)
    found = [
        candidate(name, each, shifted.x, class_mask=mask) for name, each in (("source", shifted.model), ("l", linear))
    ]
    assert found[1].embedding is None
    assert all(float(each.probabilities[:, 2].max()) == 0 for each in found)
    told = choose(found, shifted.x, class_mask=mask).scores
    assert all(math.isfinite(value) for row in told.values() for value in row.values())


@pytest.mark.parametrize("shape", [(5, 8), (4100,), (1, 4100)])
def test_spectrograms_and_waveforms_have_scores(shape: tuple[int, ...]) -> None:
    """Spectrograms are told by their bands; waveforms by what the source makes of them."""
    x = torch.randn(12, *shape, generator=compute.generator("shapes"))
    p = torch.randn(12, 3, generator=compute.generator("answers")).softmax(dim=1)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(math.prod(shape), 3))
    embedding = torch.randn(12, 4, generator=compute.generator("embedding"))
    told = table([Candidate("source", model, p, embedding)], x)
    short = embedding / embedding.norm(dim=1, keepdim=True)
    seen = torch.cat([x.mean(2), x.std(2, correction=0)], dim=1) if shape == (5, 8) else short
    assert told["source"]["predictability"] == pytest.approx(scores.predictability(p, scores.ridge_hat(seen)))


def test_a_guard_without_source_is_refused(everyone: list[Candidate]) -> None:
    with pytest.raises(UsageError, match="source"):
        source_of(everyone[1:])


def test_no_label_is_within_reach() -> None:
    names = {name for each in (choose, adapt_guarded, table) for name in inspect.signature(each).parameters}
    assert not names & {"y", "labels", "emotions", "true"}
    assert set(Choice.__annotations__) == {"name", "reason", "scores"}
    assert "label" not in inspect.getsource(guard.worth)
