"""Models: shapes, names, seeds, small batches, and what Opacus makes of the norm variants."""

from __future__ import annotations

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from safetensors.torch import load, save
from torch import nn

from fedser import compute
from fedser.errors import ConfigError
from fedser.models import (
    EmotionClassifier,
    LinearClassifier,
    ModelSettings,
    WeightNormalisedLinear,
    initialise,
)
from fedser.models.dropout import Dropout

CLASSES = ("anger", "fear", "sadness")
SMALL = {"hidden": 16, "bottleneck": 8, "width": 4}


def model(seed: int = 0, **values: object) -> EmotionClassifier:
    settings = ModelSettings.model_validate(SMALL | values)
    built = EmotionClassifier(settings, (6,) if settings.encoder == "mlp" else (32, 40), CLASSES)
    initialise(built, compute.generator("test", seed))
    return built


@pytest.mark.parametrize("encoder", ["mlp", "vgg11", "resnet"])
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_shapes_and_batches_of_one(encoder, norm):
    net = model(encoder=encoder, norm=norm)
    for batch in (1, 5):
        x = torch.randn(batch, *net.shape, generator=compute.generator("x"))
        for mode in (True, False):
            net.train(mode)
            assert net.embed(x).shape == (batch, 8)
            logits = net(x)
            assert logits.shape == (batch, 3)
            assert logits.isfinite().all()


def test_a_batch_of_one_leaves_the_running_statistics_and_the_mode_alone():
    net = model().train()
    before = {name: tensor.clone() for name, tensor in net.named_buffers()}
    net(torch.ones(1, 6))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.named_buffers())
    assert all(module.training for module in net.modules())
    net(torch.randn(4, 6, generator=compute.generator("x")))
    assert not all(torch.equal(tensor, before[name]) for name, tensor in net.named_buffers())


@pytest.mark.parametrize("encoder", ["vgg11", "resnet"])
def test_convolutions_take_any_length(encoder):
    net = model(encoder=encoder).eval()
    for frames in (3, 40, 301):
        assert net(torch.zeros(2, 32, frames)).shape == (2, 3)


def test_vgg11_has_eight_convolutions_of_the_papers_widths():
    net = EmotionClassifier(ModelSettings(encoder="vgg11"), (64, 300), CLASSES)
    widths = [layer.out_channels for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert widths == [64, 128, 256, 256, 512, 512, 512, 512]


def test_mlp_matches_its_description():
    net = model(depth=2)
    kinds = [type(layer) for layer in net.encoder.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, Dropout] * 2


@pytest.mark.parametrize("encoder", ["mlp", "vgg11", "resnet"])
def test_initialise_is_deterministic_and_leaves_the_global_generator_alone(encoder):
    state = torch.random.get_rng_state()
    first, again, other = model(1, encoder=encoder), model(1, encoder=encoder), model(2, encoder=encoder)
    assert torch.equal(torch.random.get_rng_state(), state)
    for (name, a), b in zip(first.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    weights = [name for name, parameter in first.named_parameters() if parameter.std() > 0]
    assert any("encoder" in name for name in weights)
    assert any("direction" in name for name in weights)
    assert all(not torch.equal(first.get_parameter(name), other.get_parameter(name)) for name in weights)


def test_initialise_covers_every_parameter():
    """Nothing may keep what the constructor drew: that would come from the global generator."""
    for encoder in ("mlp", "vgg11", "resnet"):
        net = model(encoder=encoder)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.fill_(torch.nan)
        initialise(net, compute.generator("test", 0))
        assert all(parameter.isfinite().all() for parameter in net.parameters())


@pytest.mark.parametrize(("encoder", "first"), [("mlp", "layers.0"), ("vgg11", "layers.0"), ("resnet", "stem")])
def test_names(encoder, first):
    net = model(encoder=encoder)
    assert net.first_layer() == (f"encoder.{first}.weight", f"encoder.{first}.bias")
    assert net.adaptable() == tuple(dict(net.named_parameters()))
    assert net.adaptable()[-3:] == ("head.direction", "head.magnitude", "head.bias")
    assert not any("running" in name for name in net.adaptable())


def test_first_layer_is_all_that_touches_the_input():
    """With the first layer's weights at zero the output no longer depends on the input."""
    for encoder in ("mlp", "vgg11", "resnet"):
        net = model(encoder=encoder).eval()
        with torch.no_grad():
            net.get_parameter(net.first_layer()[0]).zero_()
        a, b = (net(torch.randn(2, *net.shape, generator=compute.generator(seed))) for seed in (1, 2))
        assert torch.equal(a, b)


def test_state_survives_safetensors():
    net, other = model(1), model(2)
    other.load_state_dict(load(save(net.state_dict())))
    x = torch.randn(3, 6, generator=compute.generator("x"))
    assert torch.equal(net.eval()(x), other.eval()(x))


def test_wrong_features_are_refused():
    with pytest.raises(ConfigError, match="one vector"):
        EmotionClassifier(ModelSettings(), (64, 300), CLASSES)
    with pytest.raises(ConfigError, match="log-mel"):
        EmotionClassifier(ModelSettings(encoder="vgg11"), (88,), CLASSES)


def test_weight_norm_equals_torchs_own():
    head = WeightNormalisedLinear(5, 3)
    plain = nn.utils.parametrizations.weight_norm(nn.Linear(5, 3))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=compute.generator("w")))
        plain.bias.copy_(head.bias)
        plain.parametrizations.weight.original0.copy_(head.magnitude)
        plain.parametrizations.weight.original1.copy_(head.direction)
    x = torch.randn(4, 5, generator=compute.generator("x"))
    torch.testing.assert_close(head(x), plain(x))


def test_linear_classifier_is_an_affine_map():
    linear = LinearClassifier(2, ("a", "b"))
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
        linear.bias.copy_(torch.tensor([0.5, 0.0]))
    assert linear(torch.tensor([[1.0, 1.0]])).tolist() == [[3.5, -1.0]]


@pytest.mark.parametrize("encoder", ["mlp", "vgg11", "resnet"])
def test_opacus_accepts_layer_and_group_but_not_batch(encoder):
    for norm in ("layer", "group"):
        assert ModuleValidator.validate(model(encoder=encoder, norm=norm).train(), strict=False) == []
    assert ModuleValidator.validate(model(encoder=encoder, norm="batch").train(), strict=False) != []


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("encoder", ["mlp", "resnet"])
def test_opacus_per_sample_gradients_equal_single_backward_passes(encoder, norm):
    net = model(encoder=encoder, norm=norm, dropout=0.0).train()
    x = torch.randn(3, *net.shape, generator=compute.generator("x"))
    alone = []
    for row in x:
        net.zero_grad()
        net(row.unsqueeze(0)).square().sum().backward()
        alone.append([parameter.grad.clone() for parameter in net.parameters()])
    net.zero_grad()
    wrapped = GradSampleModule(net, loss_reduction="sum")
    wrapped(x.requires_grad_(True)).square().sum().backward()
    for place, parameter in enumerate(net.parameters()):
        expected = torch.stack([single[place] for single in alone])
        torch.testing.assert_close(parameter.grad_sample, expected, rtol=1e-4, atol=1e-5)
