from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.compute import generator
from fedser.train import calibrate
from fedser.train.folds import speaker_folds, usable_for_early_stop

SPEAKERS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", None]), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(SPEAKERS, st.integers(2, 6), st.integers(0, 3))
def test_each_utterance_is_held_out_once_with_all_of_its_speaker(
    speakers: list[str | None], folds: int, seed: int
) -> None:
    masks = speaker_folds(speakers, folds, seed)
    if len(set(speakers)) < 2:
        assert masks == []
        return
    assert len(masks) == min(folds, len(set(speakers)))
    assert torch.stack(masks).sum(0).eq(1).all()
    for mask in masks:
        held = {speaker for speaker, out in zip(speakers, mask.tolist(), strict=True) if out}
        kept = {speaker for speaker, out in zip(speakers, mask.tolist(), strict=True) if not out}
        assert not held & kept
        assert kept


def test_one_fold_holds_out_a_fifth_of_the_speakers() -> None:
    (mask,) = speaker_folds([str(number) for number in range(10)], 1, 0)
    assert int(mask.sum()) == 2


def test_eight_speakers_are_enough_for_an_early_stop_and_seven_are_not() -> None:
    for count, enough in ((7, False), (8, True)):
        speakers = [str(number) for number in range(count) for _ in range(2)]
        y = torch.tensor([0, 1] * count)
        obstacle = usable_for_early_stop(speakers, y, speaker_folds(speakers, 4, 0))
        assert (obstacle is None) == enough
    assert usable_for_early_stop([*speakers[:-1], None], y, speaker_folds(speakers, 4, 0)) == "unknown speakers"


def test_an_emotion_missing_from_validation_or_training_rules_the_early_stop_out() -> None:
    speakers = [str(number) for number in range(10) for _ in range(2)]
    y = torch.tensor([0, 1] * 9 + [0, 2])
    told = usable_for_early_stop(speakers, y, speaker_folds(speakers, 5, 0))
    assert told == "an emotion is spoken by held-out speakers only"
    (mask,) = speaker_folds(speakers, 1, 0)
    y = torch.tensor([0, 1] * 10)
    y[mask] = 0
    assert usable_for_early_stop(speakers, y, [mask]) == "an emotion has no recording of a held-out speaker"


@pytest.mark.parametrize("truth", [0.3, 1.0, 4.0])
def test_the_temperature_of_overconfident_logits_is_found(truth: float) -> None:
    draw = generator("calibration")
    honest = 2 * torch.randn(20_000, 4, generator=draw)
    y = torch.multinomial(honest.softmax(1), 1, generator=draw)[:, 0]
    assert calibrate.temperature(truth * honest, y) == pytest.approx(truth, rel=0.05)


def test_no_other_temperature_has_a_smaller_loss() -> None:
    draw = generator("grid")
    logits, y = 3 * torch.randn(200, 3, generator=draw), torch.randint(3, (200,), generator=draw)
    y[:120] = logits[:120].argmax(1)
    found = calibrate.temperature(logits, y)
    loss = torch.nn.functional.cross_entropy
    grid = [0.05 * 1.01**step for step in range(600)]
    assert float(loss(logits / found, y)) <= min(float(loss(logits / value, y)) for value in grid) + 1e-6


def test_perfect_and_useless_logits_stay_within_the_bounds() -> None:
    y = torch.tensor([0, 1])
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert calibrate.LOWEST <= calibrate.temperature(sure, y) < 0.06
    assert 19 < calibrate.temperature(-sure, y) <= calibrate.HIGHEST
    assert math.isfinite(calibrate.temperature(torch.zeros(2, 2), y))


def test_uar_is_the_mean_of_the_recalls_of_the_classes_that_occur() -> None:
    predicted, y = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 0, 0, 2, 2, 3])
    assert calibrate.uar(predicted, y) == pytest.approx((2 / 3 + 1 + 0) / 3)
