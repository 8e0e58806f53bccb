"""Pretrained encoders in the classifier: what is trained, what it equals at first, and what first layers are."""

from __future__ import annotations

import copy

import pytest
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch.nn import functional

from fedser.adapt import Schedule, adapt, make
from fedser.compute import generator
from fedser.errors import ConfigError, DependencyError
from fedser.models import EmotionClassifier, ModelSettings, features_for, initialise, resolve
from fedser.models.low_rank import AttentionAdapter
from fedser.models.pretrained import Units
from fedser.pretrained import Pretrained, trunk, weights

CLASSES = ("anger", "neutral", "sadness")
FAMILIES = ("wav2vec2", "hubert", "wavlm")
SAMPLES = 4800


def settings(base: Pretrained, **values: object) -> ModelSettings:
    small = {"encoder": base.family, "size": base.size, "weights": base.weights, "hidden": 12, "bottleneck": 6}
    return ModelSettings.model_validate(small | {"depth": 1, "rank": 2, "dropout": 0.0} | values)


def model(base: Pretrained, seed: int = 0, **values: object) -> EmotionClassifier:
    own = settings(base, **values)
    shape = (2 * 4 * 16,) if own.trained == "frozen" else (1, SAMPLES)
    built = EmotionClassifier(own, shape, CLASSES)
    initialise(built, generator("test", seed))
    return built.eval()


def waves(count: int) -> torch.Tensor:
    return torch.randn(count, 1, SAMPLES, generator=generator("waves"))


def stirred(net: EmotionClassifier) -> EmotionClassifier:
    """All parameters moved a little, so that nothing is zero any more."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator("stir", name)))
    return net


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("trained", ["last", "lora"])
@pytest.mark.parametrize("layers", [1, 0])
def test_at_first_all_is_as_pretrained(family, trained, layers, tiny_encoder):
    """B = 0 and untouched layers: the pooled levels are those of the frozen encoder."""
    base = tiny_encoder(family)
    net, x = model(base, trained=trained, layers=layers), waves(3)
    with torch.no_grad():
        expected = trunk.levels(weights.load(base), list(x[:, 0]), 325)
    torch.testing.assert_close(net.encoder._levels(x[:, 0]), expected)
    assert net.encoder.first == (2 if layers else 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_changes_are_what_the_paper_says(family, tiny_encoder):
    """(W + s·BA)x = Wx + s·B(Ax), eq. 3, for query and value and nothing else."""
    layer = trunk.layers_of(weights.load(tiny_encoder(family)))[1]
    adapter = AttentionAdapter(16, rank=3, alpha=6.0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator("adapter", parameter.shape[0])))
    x = torch.randn(5, 16, generator=generator("x"))
    merged = adapter.merged(layer)
    if family == "wavlm":
        query, key, value = merged["attention.attention.in_proj_weight"].split(16)
        own = layer.attention.attention.in_proj_weight.split(16)
    else:
        query, value = merged["attention.q_proj.weight"], merged["attention.v_proj.weight"]
        key = layer.attention.k_proj.weight
        own = (layer.attention.q_proj.weight, key, layer.attention.v_proj.weight)
    for weight, before, part in ((query, own[0], adapter.query), (value, own[2], adapter.value)):
        slow = functional.linear(x, before) + 2.0 * functional.linear(functional.linear(x, part.down), part.up)
        torch.testing.assert_close(functional.linear(x, weight), slow)
    assert torch.equal(key, own[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_layer_gives_the_same(family, tiny_encoder):
    """Low-rank changes written into the weights of trained layers: the model without adapters answers alike."""
    base = tiny_encoder(family)
    low, full = stirred(model(base, trained="lora", layers=2)), model(base, trained="last", layers=2)
    layers = trunk.layers_of(weights.load(base))[1:]
    state = {name: tensor for name, tensor in low.state_dict().items() if "adapters" not in name}
    for place, (adapter, layer) in enumerate(zip(low.encoder.adapters, layers, strict=True)):
        for name, tensor in (dict(layer.state_dict()) | adapter.merged(layer)).items():
            state[f"encoder.trained.{place}.{name}"] = tensor.detach()
    full.load_state_dict(state)
    torch.testing.assert_close(full(waves(3)), low(waves(3)))


@pytest.mark.parametrize(("trained", "part"), [("last", "trained"), ("lora", "adapters"), ("frozen", None)])
def test_only_what_is_trained_is_a_parameter(trained, part, tiny_encoder):
    base = tiny_encoder("wavlm")
    net = model(base, trained=trained, layers=2)
    names = net.adaptable()
    assert names == tuple(dict(net.named_parameters()))
    assert set(net.state_dict()) - set(names) == {name for name, _ in net.named_buffers()}
    kinds = {name.split(".")[1] for name in names if name.startswith("encoder.")}
    assert kinds == {"mix", "tail"} | ({part, "norm"} if part else set())
    assert {id(p) for p in net.pretrained_layers()} == {id(p) for n, p in net.named_parameters() if ".trained." in n}
    frozen = weights.load(base)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    x = torch.randn(6, 128, generator=generator("pooled")) if part is None else waves(6)
    net.train()(x).square().sum().backward()
    moved = {name for name, parameter in net.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert "encoder.mix.weights" in moved
    if part is not None:
        assert {name.split(".")[2] for name in moved if f".{part}." in name} == {"0", "1"}
    assert all(parameter.grad is None for parameter in frozen.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in frozen.state_dict().items())


@pytest.mark.parametrize("trained", ["last", "lora", "frozen"])
def test_first_layers_are_all_that_touches_what_a_frozen_encoder_gives(trained, tiny_encoder):
    """Cut the first layers' outputs off, and the input no longer matters."""
    net = stirred(model(tiny_encoder("wav2vec2"), trained=trained, layers=2))
    first = net.first_layer()
    expected = {"encoder.mix.weights", "encoder.tail.layers.0.weight", "encoder.tail.layers.0.bias"}
    if trained != "frozen":
        part = "trained.0." if trained == "last" else "adapters.0."
        inner = {name for name in net.adaptable() if name.startswith(f"encoder.{part}")}
        assert inner
        expected |= inner | {"encoder.norm.weight", "encoder.norm.bias"}
    assert set(first) == expected
    assert not any(name.startswith(("bottleneck", "head")) for name in first)
    with torch.no_grad():
        net.get_parameter("encoder.tail.layers.0.weight").zero_()
    shape = (2, *net.shape)
    a, b = (net(torch.randn(shape, generator=generator("input", seed))) for seed in (1, 2))
    assert torch.equal(a, b)


def test_chunks_change_nothing(monkeypatch, tiny_encoder):
    from fedser.models import pretrained

    net, x = stirred(model(tiny_encoder("wavlm"), trained="lora", layers=2)), waves(5)
    whole = net(x)
    monkeypatch.setattr(pretrained, "SAMPLES", 2 * SAMPLES)
    torch.testing.assert_close(net(x), whole)
    with torch.no_grad():
        torch.testing.assert_close(net(x), whole)


@pytest.mark.parametrize("trained", ["last", "lora", "frozen"])
def test_initialise_draws_what_is_new_and_restores_what_was_pretrained(trained, tiny_encoder):
    base = tiny_encoder("hubert")
    net, again = model(base, trained=trained), model(base, trained=trained)
    other = model(base, 1, trained=trained)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.fill_(torch.nan)
    initialise(again, generator("test", 0))
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
        drawn = name.endswith(("tail.layers.0.weight", ".down"))
        assert torch.equal(parameter, other.get_parameter(name)) != (
            drawn or ("0.weight" in name and "bottle" in name) or name in ("head.direction", "head.magnitude")
        )


@pytest.mark.parametrize("method", ["shot", "ecan", "tent", "bn"])
def test_methods_adapt_and_copies_share_the_frozen_part(method, tiny_encoder):
    base = tiny_encoder("wav2vec2")
    net, x = model(base, trained="lora", layers=2), waves(8)
    loaded = weights.load(base)
    adapted = adapt(net, x, make(method), Schedule(steps=3, batch_size=4), seed=0)
    assert weights.load(base) is loaded
    assert adapted.model(x).isfinite().all()
    if method in ("shot", "ecan"):
        changed = {n for n, p in adapted.model.named_parameters() if not torch.equal(p, net.get_parameter(n))}
        assert any(".adapters." in name for name in changed)
        assert not any(name.startswith("head.") for name in changed)
    assert copy.deepcopy(net).encoder.base == base


def test_what_does_not_fit_is_refused(tiny_encoder):
    base = tiny_encoder("wav2vec2")
    for trained, shape, told in (
        ("frozen", (1, SAMPLES), "pooled layers"),
        ("frozen", (2 * 13 * 768,), "pooled layers"),
        ("lora", (128,), "takes waveforms"),
        ("last", (64, 300), "takes waveforms"),
    ):
        with pytest.raises(ConfigError, match=told):
            EmotionClassifier(settings(base, trained=trained), shape, CLASSES)
    with pytest.raises(ConfigError, match="has 3 layers, not 4"):
        EmotionClassifier(settings(base, trained="lora", layers=4), (1, SAMPLES), CLASSES)
    for unpinned in ("", "/etc/passwd", "WAVLM_BASE"):
        with pytest.raises(ConfigError, match="no digest"):
            EmotionClassifier(settings(base, trained="lora", weights=unpinned), (1, SAMPLES), CLASSES)
    with pytest.raises(DependencyError, match="not on this machine"):
        EmotionClassifier(settings(base, trained="lora", weights="0" * 64), (1, SAMPLES), CLASSES)


def test_resolve_pins_weights_and_chooses_features(tiny_encoder, tmp_path):
    from fedser.audio.features import FeatureSettings

    base = tiny_encoder("wavlm")
    path = tmp_path / "wavlm.safetensors"
    asked = ModelSettings(encoder="wavlm", size="tiny", weights=str(path))
    pinned, features = resolve(asked, FeatureSettings())
    assert pinned.weights == base.weights
    assert features == FeatureSettings(kind="pretrained", pretrained=base)
    pinned, features = resolve(asked.model_copy(update={"trained": "lora"}), FeatureSettings(seconds=2.0))
    assert (pinned.weights, features) == (base.weights, FeatureSettings(kind="waveform", seconds=2.0))
    assert resolve(pinned, features) == (pinned, features)
    assert resolve(ModelSettings(), FeatureSettings()) == (ModelSettings(), FeatureSettings())
    assert features_for(pinned, "pretrained") == FeatureSettings(kind="pretrained", pretrained=base)
    assert features_for(ModelSettings(), "logmel") == FeatureSettings(kind="logmel")
    for unfit in (ModelSettings(), asked):
        with pytest.raises(ConfigError, match="pretrained"):
            features_for(unfit, "pretrained")
    with pytest.raises(ConfigError, match="which weights"):
        resolve(ModelSettings(encoder="hubert", size="large"), FeatureSettings())


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_opacus_takes_the_frozen_kind_apart(norm, tiny_encoder):
    net = stirred(model(tiny_encoder("wavlm"), norm=norm)).train()
    assert ModuleValidator.validate(net, strict=False) == []
    x = torch.randn(3, *net.shape, generator=generator("pooled"))
    alone = []
    for row in x:
        net.zero_grad()
        net(row[None]).square().sum().backward()
        alone.append([parameter.grad.clone() for parameter in net.parameters()])
    net.zero_grad()
    wrapped = GradSampleModule(net, loss_reduction="sum")
    wrapped(x.requires_grad_()).square().sum().backward()
    for place, parameter in enumerate(net.parameters()):
        expected = torch.stack([single[place] for single in alone])
        torch.testing.assert_close(parameter.grad_sample, expected, rtol=1e-4, atol=1e-4)


def test_units_can_be_watched(tiny_encoder):
    net = model(tiny_encoder("wavlm"), trained="last", layers=2)
    assert sum(isinstance(module, Units) for module in net.modules()) == 2
    assert not any(isinstance(m, Units) for m in model(tiny_encoder("wavlm"), trained="lora").modules())
