from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.compute import generator
from fedser.models import EmotionClassifier, LinearClassifier, ModelSettings, initialise
from fedser.train import TrainSettings
from fedser.train.loop import (
    epochs,
    logits_of,
    mix,
    mix_targets,
    recalibrate,
    smoothed_targets,
    soft_cross_entropy,
    taught,
)

PLAIN = TrainSettings(input_noise=0.0, mixup=0.0, label_smoothing=0.0, class_weights=False, epochs=2)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.floats(0.0, 0.9), st.booleans())
def test_targets_are_those_of_a_loop_over_utterances(labels: list[int], smoothing: float, weighted: bool) -> None:
    made = smoothed_targets(torch.tensor(labels), 4, TrainSettings(label_smoothing=smoothing, class_weights=weighted))
    for row, label in zip(made.tolist(), labels, strict=True):
        weight = len(labels) / (len(set(labels)) * labels.count(label)) if weighted else 1.0
        for number, value in enumerate(row):
            expected = smoothing / 4 + (1 - smoothing) * (number == label)
            assert value == pytest.approx(weight * expected, rel=1e-5, abs=1e-7)


def test_mixing_and_the_loss_by_hand() -> None:
    values = torch.tensor([[0.0, 2.0], [4.0, 6.0]])
    assert mix(values, torch.tensor([1, 0]), 0.75).tolist() == [[1.0, 3.0], [3.0, 5.0]]
    logits = torch.tensor([[np.log(3.0), 0.0]])
    assert float(soft_cross_entropy(logits, torch.tensor([[0.5, 1.0]]))) == pytest.approx(
        -0.5 * np.log(0.75) - np.log(0.25)
    )


def test_the_loss_of_hard_targets_is_torchs_own() -> None:
    draw = generator("loss")
    logits, y = torch.randn(9, 4, generator=draw), torch.randint(4, (9,), generator=draw)
    ours = soft_cross_entropy(logits, smoothed_targets(y, 4, PLAIN))
    torch.testing.assert_close(ours, torch.nn.functional.cross_entropy(logits, y))
    smooth = soft_cross_entropy(logits, smoothed_targets(y, 4, PLAIN.model_copy(update={"label_smoothing": 0.1})))
    torch.testing.assert_close(smooth, torch.nn.functional.cross_entropy(logits, y, label_smoothing=0.1))


def fresh(dropout: float = 0.0) -> EmotionClassifier:
    model = EmotionClassifier(ModelSettings(hidden=8, depth=1, bottleneck=4, dropout=dropout), (5,), ("a", "b", "c"))
    initialise(model, generator("model"))
    return model


def test_the_loop_is_adamw_under_half_a_cosine() -> None:
    """Against a plain loop of torch's own parts, in the same order of utterances."""
    draw = generator("data")
    x, y = torch.randn(16, 5, generator=draw), torch.randint(3, (16,), generator=draw)
    settings_ = PLAIN.model_copy(update={"batch_size": 8})
    model, oracle = fresh(), fresh()
    losses = list(epochs(model, x, y, settings_, seed=5))
    optimiser = torch.optim.AdamW(
        oracle.parameters(), lr=settings_.learning_rate, weight_decay=settings_.weight_decay, foreach=False
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 4)
    order = generator(5, "training")
    for loss in losses:
        rows = torch.randperm(16, generator=order)
        seen = []
        for batch in rows.split(8):
            value = torch.nn.functional.cross_entropy(oracle(x[batch]), y[batch])
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
            schedule.step()
            seen.append(value.item())
        assert loss == pytest.approx(np.mean(seen), rel=1e-5)
    for ours, theirs in zip(model.state_dict().values(), oracle.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_logits_are_those_of_the_quiet_model() -> None:
    model = fresh(dropout=0.5).train()
    x = torch.randn(7, 5, generator=generator("x"))
    made = logits_of(model, x, size=3)
    torch.testing.assert_close(made, model.eval()(x).detach())


def test_recalibrated_norms_see_the_quiet_model_on_clean_data() -> None:
    """The first norm by hand; the last one by what it must do: make zero means and unit variances."""
    x = 3 * torch.randn(50, 5, generator=generator("clean")) + 1
    model = fresh(dropout=0.5)
    list(epochs(model, x, torch.arange(50) % 3, PLAIN.model_copy(update={"input_noise": 2.0}), 0))
    recalibrate(model, x)
    linear, first = model.encoder.layers[0], model.encoder.layers[1]
    inner = linear(x).detach()
    torch.testing.assert_close(first.running_mean, inner.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first.running_var, inner.var(0), atol=1e-5, rtol=1e-4)
    last = model.bottleneck[1]
    scaled = (model.embed(x).detach() - last.bias) / last.weight
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=0.03, rtol=0)  # n against n − 1
    assert not any(module.training for module in model.modules())
    assert first.momentum == 0.1


def test_a_teacher_of_full_share_is_imitated_and_labels_are_ignored() -> None:
    draw = generator("taught")
    x = torch.randn(200, 5, generator=draw)
    teacher = LinearClassifier(5, ("a", "b", "c"))
    with torch.no_grad():
        teacher.weight.copy_(torch.randn(3, 5, generator=draw))
    wrong = (teacher(x).argmax(1) + 1) % 3
    model = fresh()
    settings_ = TrainSettings(epochs=30, learning_rate=5e-3, linear_share=1.0, input_noise=0.1)
    list(epochs(model, x, wrong, settings_, 0, teacher))
    recalibrate(model, x)
    assert float((logits_of(model, x).argmax(1) == teacher(x).argmax(1)).float().mean()) > 0.85


def test_the_teachers_advice_is_sharpened_before_it_is_mixed_in() -> None:
    teacher = LinearClassifier(1, ("a", "b"))
    with torch.no_grad():
        teacher.weight.copy_(torch.tensor([[1.0], [0.0]]))
    advice = taught(teacher, torch.tensor([[np.log(2.0)]], dtype=torch.float32), 2.0)
    torch.testing.assert_close(advice, torch.tensor([[0.8, 0.2]]))
    torch.testing.assert_close(mix_targets(torch.tensor([[0.0, 1.0]]), advice, 0.5), torch.tensor([[0.4, 0.6]]))
