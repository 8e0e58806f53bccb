"""TENT: which parameters move, its loss, and a shift that it repairs."""

from __future__ import annotations

import math

import pytest
import torch

from fedser import compute
from fedser.adapt import Bank, Batch, Schedule, adapt, make, probabilities
from fedser.errors import UsageError
from fedser.models import EmotionClassifier, ModelSettings, initialise

# The affine parameters by hand: after each linear layer of the encoder, and in the bottleneck.
MLP = {f"encoder.layers.{place}.{kind}" for place in (1, 5) for kind in ("weight", "bias")}
BOTTLENECK = {"bottleneck.1.weight", "bottleneck.1.bias"}


def source(**values: object) -> EmotionClassifier:
    settings = ModelSettings.model_validate({"hidden": 16, "bottleneck": 8} | values)
    shape = (6,) if settings.encoder == "mlp" else (16, 20)
    model = EmotionClassifier(settings, shape, ("a", "b", "c"))
    initialise(model, compute.generator("tent"))
    return model.eval()


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_scales_and_shifts_of_every_normalisation_move_and_nothing_else(norm):
    model, x = source(norm=norm), torch.randn(30, 6, generator=compute.generator("x"))
    assert set(make("tent").trainable(model)) == MLP | BOTTLENECK
    adapted = adapt(model, x, make("tent"), Schedule(epochs=3, batch_size=8), seed=0).model
    before = dict(model.named_parameters())
    moved = {name for name, value in adapted.named_parameters() if not torch.equal(value, before[name])}
    assert moved == MLP | BOTTLENECK


@pytest.mark.parametrize("encoder", ["vgg11", "resnet"])
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_normalisations_of_feature_maps_are_found_too(encoder, norm):
    model = source(encoder=encoder, norm=norm, width=8)
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.LayerNorm, torch.nn.GroupNorm)
    layers = sum(isinstance(module, kinds) for module in model.modules())
    names = make("tent").trainable(model)
    assert layers > 5
    assert len(names) == 2 * layers
    assert all(dict(model.named_parameters())[name].dim() == 1 for name in names)


def test_loss_equals_the_loop():
    logits = torch.randn(5, 3, generator=compute.generator("t"), dtype=torch.float64)
    p, b = logits.softmax(dim=1), torch.ones(5, 2, dtype=torch.float64)
    expected = 0.0
    for row in p.tolist():
        for value in row:
            expected -= value * math.log(value) / 5
    seen = Batch(torch.arange(5), b, b, p, logits, Bank(b, p), None, 0.0)
    assert {name: value.item() for name, value in make("tent").loss(seen).items()} == {
        "entropy_loss": pytest.approx(expected)
    }


def test_another_microphone_is_repaired(shifted):
    """Each feature at another scale and offset: the kind of shift that normalisation layers can undo."""
    draw = compute.generator("microphone")
    x = shifted.x * (0.5 + torch.rand(12, generator=draw)) + 2 * torch.randn(12, generator=draw)
    adapted = adapt(shifted.model, x, make("tent"), seed=0).model

    def accuracy(model: torch.nn.Module) -> float:
        return float((probabilities(model, x).argmax(dim=1) == shifted.y).float().mean())

    assert accuracy(adapted) > accuracy(shifted.model) + 0.05


@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_predictions_become_surer(norm):
    model, x = source(norm=norm, dropout=0.0), torch.randn(60, 6, generator=compute.generator("x"))
    adapted = adapt(model, x, make("tent"), Schedule(epochs=60, learning_rate=1e-2, input_noise=0.0), seed=0)
    assert adapted.history[-1]["entropy"] < adapted.history[0]["entropy"] - 0.05


def test_without_a_normalisation_to_train_it_is_refused():
    model = source()
    with pytest.raises(UsageError, match="all parameters are frozen"):
        adapt(model, torch.zeros(4, 6), make("tent"), seed=0, frozen=make("tent").trainable(model))
