"""BN statistics against the moments of the target, layer by layer."""

from __future__ import annotations

import pytest
import torch

from fedser import compute
from fedser.adapt import adapt, make
from fedser.errors import TooLittleDataError
from fedser.models import EmotionClassifier, ModelSettings, initialise


def source(norm: str = "batch") -> EmotionClassifier:
    model = EmotionClassifier(ModelSettings(hidden=8, bottleneck=4, norm=norm), (6,), ("a", "b"))
    initialise(model, compute.generator("bn"))
    return model.eval()


def test_running_statistics_are_the_targets_moments():
    model, x = source(), 3 + 2 * torch.randn(50, 6, generator=compute.generator("x"))
    adapted = adapt(model, x, make("bn"), seed=0).model
    with torch.no_grad():
        hidden = x
        for layer in adapted.encoder.layers:
            if isinstance(layer, torch.nn.BatchNorm1d):
                torch.testing.assert_close(layer.running_mean, hidden.mean(dim=0), rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(layer.running_var, hidden.var(dim=0), rtol=1e-4, atol=1e-4)
                # In training a batch is divided by the biased variance, N in place of N - 1.
                hidden = layer.weight * (hidden - hidden.mean(dim=0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
                hidden = hidden + layer.bias
            else:
                hidden = layer(hidden)
    assert all(torch.equal(a, b) for a, b in zip(adapted.parameters(), model.parameters(), strict=True))
    assert not adapted.training
    assert {layer.momentum for layer in adapted.modules() if isinstance(layer, torch.nn.BatchNorm1d)} == {0.1}


def test_many_utterances_go_through_in_equal_batches_of_a_mixed_order():
    """Sorted recordings must not give the statistics of single speakers: the mean over batches stays near."""
    x = torch.randn(700, 6, generator=compute.generator("x")) + torch.arange(700).unsqueeze(1) / 100
    adapted = adapt(source(), x, make("bn"), seed=0).model
    first = adapted.encoder.layers[0](x)
    torch.testing.assert_close(adapted.encoder.layers[1].running_mean, first.mean(dim=0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(adapted.encoder.layers[1].running_var, first.var(dim=0), rtol=0.05, atol=0.02)


def test_nothing_changes_without_batch_normalisation():
    model, x = source("layer"), torch.randn(9, 6, generator=compute.generator("x"))
    assert torch.equal(adapt(model, x, make("bn"), seed=0).model(x), model(x))


def test_one_utterance_has_no_variance():
    with pytest.raises(TooLittleDataError, match="at least 2"):
        adapt(source(), torch.zeros(1, 6), make("bn"), seed=0)
