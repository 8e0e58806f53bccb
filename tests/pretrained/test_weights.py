"""The store: the same tensors have the same digest whatever they came in; all else is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedser.errors import ConfigError, DependencyError, NetworkError
from fedser.pretrained import Pretrained, weights
from fedser.pretrained.architectures import ARCHITECTURES


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSER_WEIGHTS", str(tmp_path / "store"))


def test_names_and_containers_do_not_matter(tiny_encoder, tmp_path):
    wanted = tiny_encoder("hubert")
    state = load_file(weights.require(wanted))
    wrapped = {f"model.{name}": tensor for name, tensor in state.items()} | {"aux.weight": torch.ones(3)}
    torch.save(wrapped, tmp_path / "pipeline.pth")
    assert weights.obtain(str(tmp_path / "pipeline.pth"), "hubert", "tiny") == wanted.weights
    old = {  # what torch.nn.utils.weight_norm called its parts, as in torchaudio's files
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pt")
    assert weights.obtain(str(tmp_path / "old.pt"), "hubert", "tiny") == wanted.weights
    assert weights.obtain(wanted.weights, "hubert", "tiny") == wanted.weights
    assert [path.stem for path in weights.root().iterdir()] == [wanted.weights]


def test_digest_sees_names_shapes_and_values():
    one = {"a": torch.arange(6.0)}
    others = [{"b": torch.arange(6.0)}, {"a": torch.arange(6.0).view(2, 3)}, {"a": torch.arange(6.0) + 1e-6}]
    assert len({weights.digest(tensors) for tensors in (one, *others)}) == 4
    assert weights.digest(one) == weights.digest({"a": torch.arange(12.0)[:6]})


def test_what_does_not_fit_is_refused(tiny_encoder, tmp_path):
    wanted = tiny_encoder("wavlm")
    path = weights.require(wanted)
    for family in ("wav2vec2", "hubert"):
        with pytest.raises(ConfigError, match="does not hold the weights"):
            weights.obtain(str(path), family, "tiny")
    broken = load_file(path)
    broken["encoder.transformer.layer_norm.bias"][0] = torch.nan
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(ConfigError, match="not finite"):
        weights.obtain(str(tmp_path / "nan.safetensors"), "wavlm", "tiny")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name in ("text.safetensors", "text.pth", "missing.pth"):
        with pytest.raises(ConfigError):
            weights.obtain(str(tmp_path / name), "wavlm", "tiny")
    with pytest.raises(ConfigError, match="not of hubert base"):
        weights.obtain("WAVLM_BASE", "hubert", "base")
    with pytest.raises(ConfigError, match="no encoder hubert of the size large_lv60k"):
        weights.obtain(str(path), "hubert", "large_lv60k")


class Trap:
    """Touches a file when a pickle of it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_state_dict_runs_no_code(tmp_path):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for name in ("trap.pth", "plain.pth"):
        with pytest.raises(ConfigError, match="state dict"):
            weights.obtain(str(tmp_path / name), "wavlm", "tiny")
    assert not (tmp_path / "sprung").exists()


def test_weights_that_are_not_here_or_not_themselves(tiny_encoder, tmp_path):
    wanted = tiny_encoder("wav2vec2")
    absent = Pretrained(family="wav2vec2", size="tiny", weights="0" * 64)
    with pytest.raises(DependencyError, match="not on this machine") as refused:
        weights.load(absent)
    assert "fedser weights fetch" in refused.value.hint
    weights.require(wanted).rename(weights.path_of(absent.weights))
    with pytest.raises(ConfigError, match="other weights than its name"):
        weights.load(absent)


@pytest.mark.parametrize("name", ["../../etc/passwd", "A" * 64, "", "0" * 63])
def test_only_a_digest_names_a_stored_file(name):
    with pytest.raises(ConfigError, match="no digest"):
        weights.path_of(name)


def test_a_download_without_a_network_is_told(monkeypatch):
    import torchaudio.pipelines._wav2vec2.utils as inner

    asked = []

    def unreachable(url: str, **options: object) -> None:
        asked.append((url, options))
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(inner, "load_state_dict_from_url", unreachable)
    with pytest.raises(NetworkError, match="could not download WAVLM_BASE_PLUS") as refused:
        weights._download("WAVLM_BASE_PLUS")
    assert "path" in refused.value.hint
    assert asked[0][1]["weights_only"] is True


def test_pipelines_are_torchaudios_and_fit_the_table():
    import torchaudio

    for name, row in weights.PIPELINES.items():
        assert row in ARCHITECTURES
        published = getattr(torchaudio.pipelines, name)._params
        if row[1] != "base":
            continue
        with torch.device("meta"):
            ours = ARCHITECTURES[row].build().state_dict()
        assert published["encoder_embed_dim"] == ARCHITECTURES[row].width
        assert (
            published["encoder_ff_interm_features"]
            == ours["encoder.transformer.layers.0.feed_forward.intermediate_dense.bias"].shape[0]
        )
        assert published["encoder_layer_norm_first"] is False
