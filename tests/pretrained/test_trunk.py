"""The forward pass: torchaudio's own one by one is the oracle, and company in a batch changes nothing."""

from __future__ import annotations

import pytest
import torch

from fedser.compute import generator
from fedser.pretrained import trunk, weights
from fedser.pretrained.architectures import ARCHITECTURES, architecture

FAMILIES = ("wav2vec2", "hubert", "wavlm")


def waveforms(*lengths: int) -> list[torch.Tensor]:
    return [torch.randn(length, generator=generator("wave", length)) for length in lengths]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_each_layer_is_torchaudios(family, tiny_encoder):
    model = weights.load(tiny_encoder(family))
    (wave,) = waveforms(5000)
    expected, _ = model.extract_features(wave[None])
    hidden = trunk.frames(model, [wave], 325)
    for layer, wanted in zip(trunk.layers_of(model), expected, strict=True):
        hidden = trunk.step(layer, hidden)
        torch.testing.assert_close(hidden.x, wanted)
    found = trunk.levels(model, [wave], 325)[0]
    assert found.shape == (2, 4, 16)
    torch.testing.assert_close(found[0, 1:], torch.stack([layer[0].mean(0) for layer in expected]))
    deviations = torch.stack([layer[0].std(0, correction=0) for layer in expected])
    torch.testing.assert_close(found[1, 1:], (deviations**2 + 1e-5).sqrt())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_company_changes_nothing(family, tiny_encoder):
    """Utterances of different lengths, one shorter than the first frame: a batch gives what each gives alone."""
    model = weights.load(tiny_encoder(family))
    waves = waveforms(100, 325, 4000, 9001, 16_000)
    together = trunk.levels(model, waves, 325)
    for wave, row in zip(waves, together, strict=True):
        torch.testing.assert_close(trunk.levels(model, [wave], 325)[0], row, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_torchaudios_own_batch_is_not_that(tiny_encoder):
    """Why this pass exists: padded zeros move the group norm of the base models."""
    model = weights.load(tiny_encoder("wav2vec2"))
    waves = waveforms(4000, 16_000)
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    found, counts = model.extract_features(padded, torch.tensor([4000, 16_000]))
    alone, _ = model.extract_features(waves[0][None])
    assert not torch.allclose(found[-1][0, : counts[0]], alone[-1][0], atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_flow_through_a_masked_batch(family, tiny_encoder):
    model = weights.load(tiny_encoder(family))
    hidden = trunk.frames(model, waveforms(400, 4000), 325)
    hidden = trunk.Hidden(hidden.x.requires_grad_(), hidden.padded, hidden.bias)
    trunk.pooled(trunk.step(trunk.layers_of(model)[0], hidden)).square().sum().backward()
    assert hidden.x.grad.isfinite().all()
    assert (hidden.x.grad[hidden.padded] == 0).all()
    assert (hidden.x.grad[~hidden.padded] != 0).any()


def test_replaced_weights_are_used_and_the_layer_stays(tiny_encoder):
    model = weights.load(tiny_encoder("wav2vec2"))
    layer, hidden = trunk.layers_of(model)[1], trunk.frames(model, waveforms(2000), 325)
    before = layer.attention.q_proj.weight.clone()
    changed = trunk.step(layer, hidden, {"attention.q_proj.weight": 3 * before})
    assert not torch.equal(changed.x, trunk.step(layer, hidden).x)
    assert torch.equal(layer.attention.q_proj.weight, before)


def test_the_table_tells_the_truth():
    for (family, size), row in ARCHITECTURES.items():
        if size != "tiny" and (family, size) != ("wavlm", "base"):
            continue  # seconds each
        with torch.device("meta"):
            model = architecture(family, size).build()
        layers = trunk.layers_of(model)
        assert (len(layers), layers[0].layer_norm.normalized_shape) == (row.layers, (row.width,))
        receptive = 1
        for block in reversed(model.feature_extractor.conv_layers):
            receptive = (receptive - 1) * block.stride + block.kernel_size
        assert receptive == row.receptive
        assert not any(module.p for module in model.modules() if isinstance(module, torch.nn.Dropout))
