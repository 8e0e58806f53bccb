from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from fedser.compute import generator
from fedser.errors import TooLittleDataError
from fedser.models import ModelSettings
from fedser.train import TrainSettings, train_model
from fedser.train.calibrate import uar

CPU = torch.device("cpu")
SMALL = ModelSettings(hidden=32, depth=1, bottleneck=16)
BY_HEART = TrainSettings(
    epochs=25, folds=2, linear_share=0.0, early_stop=False, input_noise=0.0, mixup=0.0, learning_rate=5e-3
)
CLASSES = ("anger", "neutral", "sadness")


def corpus(speakers: int, each: int = 12, spread: float = 1.0) -> tuple[Tensor, Tensor, list[str | None]]:
    """Three emotions, apart by 2 in one dimension each, and a voice of each speaker's own."""
    draw = generator("corpus", speakers, each)
    y = torch.arange(speakers * each) % 3
    voices = torch.randn(speakers, 6, generator=draw).repeat_interleave(each, 0)
    x = spread * torch.randn(len(y), 6, generator=draw) + 0.3 * voices
    x[torch.arange(len(y)), y] += 2.0
    return x, y, [f"s{number}" for number in range(speakers) for _ in range(each)]


def test_it_learns_and_the_model_is_ready_for_use() -> None:
    x, y, speakers = corpus(10)
    trained = train_model(x, y, speakers, CLASSES, SMALL, TrainSettings(), 0, CPU)
    assert not trained.model.training
    with torch.no_grad():
        assert uar(trained.model(x).argmax(1), y) > 0.75
    held_out = uar(trained.held_out_logits.argmax(1), y)
    assert held_out > 0.65
    assert held_out == pytest.approx(max(entry.get("validation_uar", 0.0) for entry in trained.history))
    assert "5 speaker folds, early stop on UAR" in trained.validation
    assert 0.1 < trained.temperature < 3


def test_the_training_stops_after_the_best_held_out_epoch() -> None:
    x, y, speakers = corpus(10)
    settings = TrainSettings(epochs=30, patience=3)
    trained = train_model(x, y, speakers, CLASSES, SMALL, settings, 1, CPU)
    uars = [entry["validation_uar"] for entry in trained.history]
    assert len(uars) == trained.epochs == len(trained.history) < 30
    assert uars[-1] == max(uars)


def test_few_or_unknown_speakers_train_for_the_full_number_of_epochs() -> None:
    x, y, speakers = corpus(7)
    settings = TrainSettings(epochs=4)
    seven = train_model(x, y, speakers, CLASSES, SMALL, settings, 0, CPU)
    assert seven.epochs == len(seven.history) == 4
    assert "7 known speakers, fewer than 8" in seven.validation
    assert seven.temperature != 1.0
    nobody = train_model(x, y, [None] * len(y), CLASSES, SMALL, settings, 0, CPU)
    assert (nobody.epochs, nobody.temperature) == (4, 1.0)
    assert bool(nobody.held_out_logits.isnan().all())


def test_held_out_logits_come_from_models_that_never_heard_the_speaker() -> None:
    """Labels of one speaker's own, learnable from that speaker only, must stay unknown."""
    draw = generator("secret")
    x, y = torch.randn(120, 40, generator=draw), torch.randint(2, (120,), generator=draw)
    speakers = [f"s{number % 10}" for number in range(120)]
    trained = train_model(x, y, speakers, ("anger", "neutral"), SMALL, BY_HEART, 0, CPU)
    with torch.no_grad():
        assert uar(trained.model(x).argmax(1), y) > 0.8, "learnt by heart"
    assert uar(trained.held_out_logits.argmax(1), y) < 0.65


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_generator_alone() -> None:
    x, y, speakers = corpus(8)
    settings = TrainSettings(epochs=3)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = train_model(x, y, speakers, CLASSES, SMALL, settings, 7, CPU)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    second = train_model(x, y, speakers, CLASSES, SMALL, settings, 7, CPU)
    other = train_model(x, y, speakers, CLASSES, SMALL, settings, 8, CPU)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])
    assert first.temperature == second.temperature
    assert not torch.equal(first.model.head.direction, other.model.head.direction)


def test_unlabelled_utterances_change_nothing() -> None:
    x, y, speakers = corpus(8)
    settings = TrainSettings(epochs=3)
    alone = train_model(x, y, speakers, CLASSES, SMALL, settings, 0, CPU)
    noise = torch.cat([x, 100 * torch.ones(5, 6)])
    labels = torch.cat([y, torch.full((5,), -1)])
    beside = train_model(noise, labels, [*speakers, *["s0"] * 5], CLASSES, SMALL, settings, 0, CPU)
    assert torch.equal(alone.model.head.direction, beside.model.head.direction)


def test_copies_validate_nothing() -> None:
    x, y, speakers = corpus(8)
    both, labels = torch.cat([x, x + 50]), torch.cat([y, y])
    original = torch.arange(len(both)) < len(x)
    trained = train_model(
        both, labels, speakers * 2, CLASSES, SMALL, TrainSettings(epochs=3), 0, CPU, original=original
    )
    best = max(entry["validation_uar"] for entry in trained.history)
    assert best == pytest.approx(uar(trained.held_out_logits[original].argmax(1), y))


@pytest.mark.parametrize(
    ("labels", "told"), [([0] * 9, "found: anger"), ([-1] * 9, "found: none"), ([0] * 8 + [1], "Too few recordings")]
)
def test_too_little_to_learn_from_is_refused(labels: list[int], told: str) -> None:
    with pytest.raises(TooLittleDataError, match=told):
        train_model(torch.randn(9, 4), torch.tensor(labels), ["a"] * 9, CLASSES, SMALL, TrainSettings(), 0, CPU)


def test_one_speaker_and_four_utterances_are_enough_to_run() -> None:
    trained = train_model(
        torch.randn(4, 6, generator=generator("x")),
        torch.tensor([0, 0, 1, 1]),
        ["only"] * 4,
        ("anger", "neutral"),
        SMALL,
        TrainSettings(epochs=2),
        0,
        CPU,
    )
    assert trained.validation.startswith("none")


def test_a_corpus_of_emodbs_size_takes_seconds() -> None:
    draw = generator("speed")
    x, y = torch.randn(535, 88, generator=draw), torch.randint(7, (535,), generator=draw)
    settings = TrainSettings(epochs=60, folds=0)
    started = time.process_time()
    train_model(x, y, [None] * 535, [str(n) for n in range(7)], ModelSettings(), settings, 0, CPU)
    assert time.process_time() - started < 10  # about 2 on an idle core
