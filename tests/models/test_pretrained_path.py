"""A tiny pretrained encoder through everything: train, bundle, adapt, predict, rounds in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from fedser import bundle as bundles
from fedser.adapt import Schedule
from fedser.audio import dataset
from fedser.bundle import Bundle, format, keys
from fedser.cli import app
from fedser.config import validate
from fedser.errors import BundleFormatError, ConfigError, DependencyError, FedserError
from fedser.federation import firing, wire
from fedser.federation.data import local_data
from fedser.federation.layout import pack
from fedser.federation.policy import Policy
from fedser.federation.provider import Plan, Provider, travelling
from fedser.federation.schema import Update
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, apply_update, average
from fedser.pretrained import weights

SMALL = ("model.hidden=8", "model.bottleneck=4", "model.rank=2", "model.size=tiny", "train.folds=1")


def fedser(*words: object) -> str:
    """Type a command; its errors come out as they are."""
    result = CliRunner().invoke(app, [*map(str, words)])
    if isinstance(result.exception, FedserError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@dataclass
class Provided:
    """A bundle that ``fedser train`` wrote."""

    path: Path
    signer: str
    bundle: Bundle


@pytest.fixture
def provided(
    tmp_path: Path, speech: Path, tiny_encoder: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], Provided]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def make(encoder: str, trained: str, *more: str) -> Provided:
        tiny_encoder(encoder)
        path = tmp_path / f"{encoder}-{trained}.safetensors"
        fedser(
            *("train", "--corpora", f"tiny={speech}", "--encoder", encoder, "--epochs", 2, "--out", path, *SMALL),
            *(f"model.trained={trained}", f"model.weights={tmp_path / encoder}.safetensors"),
            *("features.seconds=0.5", "train.mixup=0", "train.input_noise=0.05", *more),
        )
        signer = str(keys.public_path(keys.default_path()))
        return Provided(path, signer, bundles.read(path, signer=signer))

    return make


@pytest.mark.parametrize(
    ("encoder", "trained", "kind"),
    [("wav2vec2", "frozen", "pretrained"), ("hubert", "last", "waveform"), ("wavlm", "lora", "waveform")],
)
def test_train_adapt_predict(encoder, trained, kind, provided, speech, tmp_path, monkeypatch):
    source = provided(encoder, trained)
    header = source.bundle.header
    assert header.features.kind == kind
    assert header.model.weights in {path.stem for path in weights.root().iterdir()}
    stored = {name.removeprefix("model.") for name in source.bundle.tensors if name.startswith("model.")}
    assert stored == set(source.bundle.classifier().state_dict())
    assert not any("feature_extractor" in name for name in stored)
    assert set(header.adaptable) <= stored
    assert header.linear == (trained == "frozen")  # pooled layers are vectors, for which the plain peer goes along

    shown = fedser("bundle", "show", source.path, "--signer", source.signer)
    assert header.model.weights in shown
    assert f"trained {trained}" in shown

    out = tmp_path / "adapted"
    own = ("--bundle", source.path, "--signer", source.signer)
    fedser("adapt", "--data", speech, "--method", "shot", "--no-guard", "--epochs", 1, *own, "--out", out)
    rows = json.loads(fedser("predict", speech, "--model", out, "--format", "json"))["predictions"]
    assert len(rows) == 48
    again = json.loads(
        fedser("predict", speech, "--model", source.path, "--signer", source.signer, "--format", "json")
    )["predictions"]
    assert {row["emotion"] for row in again} <= set(header.classes)

    for place in ("FEDSER_WEIGHTS", "FEDSER_CACHE"):
        monkeypatch.setenv(place, str(tmp_path / "empty"))
    bundles.read(source.path, signer=source.signer)  # verified without the weights
    weights._loaded.cache_clear()
    with pytest.raises(DependencyError, match="not on this machine"):
        fedser("predict", speech, "--model", source.path, "--signer", source.signer)


class Wired:
    """A transport over sites in this process that remembers replies."""

    def __init__(self, sites: dict[str, Site]) -> None:
        self.sites = sites
        self.replies: list[tuple[str, bytes]] = []

    def exchange(self, orders: Any) -> Any:
        for site, order in orders:
            reply = self.sites[site].answer(order)
            self.replies.append((site, reply))
            yield site, reply


def site_data(source: Provided, speech: Path) -> list[LocalData]:
    """Two sites of two speakers each."""
    data = dataset.load(speech, source.bundle.header.features)
    voices = sorted({speaker for speaker in data.speakers if speaker})
    found = []
    for own in (voices[:2], voices[2:]):
        part = data.subset([row for row, speaker in enumerate(data.speakers) if speaker in own])
        found.append(local_data(part, source.bundle.classifier(), None, source.bundle.header.normalisation, None)[0])
    return found


@pytest.mark.parametrize(("encoder", "trained"), [("hubert", "frozen"), ("wav2vec2", "last"), ("wavlm", "lora")])
def test_rounds_carry_only_what_is_trained(encoder, trained, provided, speech, tmp_path):
    from fedser.adapt import make

    source = provided(encoder, trained)
    model = source.bundle.classifier()
    names = ("site-1", "site-2")
    own = {name: keys.create(tmp_path / name) for name in names}
    orders = keys.create(tmp_path / "orders")
    data = dict(zip(names, site_data(source, speech), strict=True))
    sites = {name: Site(name, "study", data[name], Policy(), own[name], orders.public_hex) for name in names}
    layout = travelling(model, make("shot"), Policy())
    carried = {name for name, _ in layout}
    assert carried <= set(model.adaptable()) - set(model.first_layer())
    assert not any(name.startswith(("encoder.mix", "encoder.norm", "head.")) for name in carried)
    part = {"frozen": "encoder.tail.layers.1", "last": "encoder.trained.1", "lora": "encoder.adapters.1"}[trained]
    assert any(name.startswith(part) for name in carried)
    plan = Plan(
        study="study",
        sites={name: key.public_hex for name, key in own.items()},
        method="shot",
        options={},
        layout=layout,
        schedule=Schedule(steps=6, batch_size=16, input_noise=0.05),
        rounds=2,
    )
    transport = Wired(sites)
    provider = Provider(plan, orders, transport, (average(), apply_update()))
    start = pack(dict(model.named_parameters()), layout)
    after = provider.run(start)
    assert after.shape == start.shape
    assert not torch.equal(after, start)
    assert len(transport.replies) >= 4
    for name, reply in transport.replies:
        message, flat = wire.decode_reply(reply, own[name].public_hex)
        assert isinstance(message, Update)
        assert len(flat) in (0, len(start))
    assert set(sites["site-1"].state.own) == set(model.state_dict()) - carried


def test_a_site_stops_at_trap_units_of_a_trained_layer(provided, speech):
    """A unit of a transformer layer that fires for one utterance alone is noticed, and honest ones are not."""
    source = provided("wav2vec2", "last", "model.layers=2")
    data = site_data(source, speech)[0]
    seen = firing.patterns(data.model, data.x)
    assert [layer.shape for layer in seen] == [(len(data.x), 24)] * 2 + [(len(data.x), 8)] * 2
    signed = firing.layers(data.model, data.x, 0.02)
    assert not firing.suspicious(signed, signed, len(data.x), 0.02, 0.25)

    inner = data.model.get_submodule("encoder.trained.1.feed_forward.intermediate_dense")
    heard = []
    handle = inner.register_forward_hook(lambda _layer, given, _result: heard.append(given[0]))
    with torch.no_grad():
        data.model(data.x)
        handle.remove()
        frames = torch.cat(heard)
        direction = frames.mean(dim=(0, 1)) / frames.mean(dim=(0, 1)).norm()
        peaks = (frames @ direction).amax(dim=1).sort().values
        inner.weight.copy_(direction.expand_as(inner.weight))
        inner.bias.copy_(-torch.linspace(float(peaks[1]), float(peaks[-1]) - 1e-4, len(inner.bias)))
    crafted = firing.layers(data.model, data.x, 0.02)
    assert firing.suspicious(crafted, signed, len(data.x), 0.02, 0.25)


def test_settings_among_the_corpora_are_checked(speech, tmp_path):
    for word, told in (
        ("model.rnak=2", "did you mean 'rank'"),
        ("train.epochs=no", "epochs"),
        ("model.layers=99", "48"),
    ):
        with pytest.raises(ConfigError, match=told):
            fedser("train", "--corpora", f"tiny={speech}", word, "--out", tmp_path / "none.safetensors")


def test_a_header_may_pin_a_digest_and_nothing_else(provided):
    header = provided("wavlm", "lora").bundle.header
    for named in ("/etc/passwd", "WAVLM_BASE", "0" * 63):
        changed = header.model_dump() | {"model": header.model.model_dump() | {"weights": named}}
        with pytest.raises(ConfigError, match="digest"):
            validate(bundles.BundleHeader, changed)


def test_a_bundle_that_nobody_would_read_is_not_written(provided, tmp_path, monkeypatch):
    source = provided("wavlm", "lora")
    monkeypatch.setattr(format, "MAX_BYTES", 1000)
    with pytest.raises(BundleFormatError, match="nobody reads more"):
        bundles.write(
            tmp_path / "large.safetensors", source.bundle.header, source.bundle.tensors, keys.load(keys.default_path())
        )
    assert not (tmp_path / "large.safetensors").exists()
