"""Pretrained weights on this machine: a store of safetensors files, each under the digest of its tensors.

A bundle names weights by digest alone. So a provider and a site that fetched them from different places compute with
the same numbers, or not at all; and nothing that comes over the wire decides which file is opened.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fedser import files
from fedser.audio import cache
from fedser.errors import ConfigError, DependencyError, NetworkError
from fedser.pretrained.architectures import architecture
from fedser.pretrained.settings import Pretrained

# torchaudio's pipelines whose weights fit the table; those fine-tuned for recognition are left out.
PIPELINES = {
    "WAV2VEC2_BASE": ("wav2vec2", "base"),
    "WAV2VEC2_LARGE": ("wav2vec2", "large"),
    "WAV2VEC2_LARGE_LV60K": ("wav2vec2", "large_lv60k"),
    "WAV2VEC2_XLSR53": ("wav2vec2", "large_lv60k"),
    "WAV2VEC2_XLSR_300M": ("wav2vec2", "large_lv60k"),
    "HUBERT_BASE": ("hubert", "base"),
    "HUBERT_LARGE": ("hubert", "large"),
    "WAVLM_BASE": ("wavlm", "base"),
    "WAVLM_BASE_PLUS": ("wavlm", "base"),
    "WAVLM_LARGE": ("wavlm", "large"),
}
MAX_BYTES = 4 * 2**30
_PREFIXES = ("model.", "wav2vec2.")  # what torchaudio's wrappers put before the names
_OTHERS = ("aux.", "mask_generator.", "logit_generator.")  # heads of pre-training and recognition


def root() -> Path:
    """The store: $FEDSER_WEIGHTS, or ``weights`` in the folder of the feature cache.

    Raises:
        ConfigError: there is neither.
    """
    if named := os.environ.get("FEDSER_WEIGHTS"):
        return Path(named)
    base = cache.root()
    if base is None:
        raise ConfigError("There is no place for pretrained weights.", "Set FEDSER_WEIGHTS to a folder.")
    return base / "weights"


def path_of(digest: str) -> Path:
    """Where weights of this digest lie.

    Raises:
        ConfigError: it is no digest.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ConfigError(
            f"'{digest:.80}' is no digest of pretrained weights.",
            "'fedser weights fetch' puts weights into the store and prints their digest.",
        )
    return root() / f"{digest}.safetensors"


def require(wanted: Pretrained) -> Path:
    """The stored file of these weights; it is not read yet.

    Raises:
        DependencyError: it is not on this machine.
    """
    path = path_of(wanted.weights)
    if not path.is_file():
        raise DependencyError(
            f"The model stands on {wanted.family} {wanted.size} weights that are not on this machine "
            f"({wanted.weights[:16]}…).",
            f"Fetch them with 'fedser weights fetch NAME_OR_FILE'; they then lie in {path.parent}.",
        )
    return path


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of the names: the container does not matter."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        found.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        found.update(tensor.numpy().data.cast("B") if tensor.numel() else b"")
    return found.hexdigest()


def load(wanted: Pretrained, device: torch.device = torch.device("cpu")) -> nn.Module:
    """The encoder with its stored weights, frozen; one copy a process and device, which nobody may change.

    Raises:
        DependencyError: the weights are not on this machine.
        ConfigError: the file is damaged, or holds other weights than its name says.
    """
    return _loaded(wanted, str(device))


@lru_cache(maxsize=2)
def _loaded(wanted: Pretrained, device: str) -> nn.Module:
    path = require(wanted)
    model = _filled(_safetensors(path), wanted.family, wanted.size, str(path))
    if digest(model.state_dict()) != wanted.weights:
        raise ConfigError(f"{path} holds other weights than its name says.", "Remove the file, and fetch them again.")
    return model.to(device)


def obtain(source: str, family: str, size: str) -> str:
    """Put weights into the store and return their digest.

    Args:
        source: a digest that is there already, one of :data:`PIPELINES` (torchaudio downloads it), or a local file:
            ``.safetensors``, or a torchaudio state dict, of which nothing but tensors is read.
        family, size: the row of the table that they must fit.

    Raises:
        ConfigError: the source does not exist, or holds other weights.
        DependencyError: a digest that is not in the store.
        NetworkError: the download failed.
        OutputError: the store cannot be written.
    """
    if re.fullmatch(r"[0-9a-f]{64}", source):
        require(Pretrained.model_validate({"family": family, "size": size, "weights": source}))
        return source
    if source in PIPELINES:
        if PIPELINES[source] != (family, size):
            raise ConfigError(
                f"{source} holds weights of {' '.join(PIPELINES[source])}, not of {family} {size}.",
                "Name the encoder and size that belong to the weights.",
            )
        state = _download(source)
    else:
        state = _from_file(Path(source))
    model = _filled(state, family, size, source)
    found = digest(model.state_dict())
    place = path_of(found)
    if not place.is_file():
        plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        files.write_tensors(place, plain, None, 0o644)
    return found


def _filled(state: Mapping[str, Tensor], family: str, size: str, origin: str) -> nn.Module:
    model = architecture(family, size).build()
    try:
        model.load_state_dict(_plain(state))
    except (RuntimeError, TypeError, AttributeError):
        raise ConfigError(
            f"{origin} does not hold the weights of {family} {size}.",
            "Name the encoder and size that belong to the weights; other toolkits' files name tensors differently.",
        ) from None
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise ConfigError(f"{origin} holds weights that are not finite.", "Fetch the file again.")
    return model.requires_grad_(False).eval()


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's own tensors, under the names that the encoder alone gives them."""
    for prefix in _PREFIXES:
        if any(name.startswith(f"{prefix}feature_extractor.") for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if not name.startswith(_OTHERS)}


def _from_file(path: Path) -> Mapping[str, Tensor]:
    try:
        size = path.stat().st_size
    except OSError:
        raise ConfigError(
            f"There are no pretrained weights {path}.",
            f"Name a .safetensors file, a torchaudio state dict, or one of {', '.join(PIPELINES)}.",
        ) from None
    if size > MAX_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_BYTES} bytes.", "Name a file of one of the known encoders.")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader of foreign files raises of every kind
        raise ConfigError(
            f"{path} cannot be read as a state dict ({type(error).__name__}).",
            "Name a .safetensors file or a state dict that torch.save wrote.",
        ) from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path} holds more than tensors.", "Save the model's state dict alone.")
    return state


def _safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.", "Fetch the file again.") from None


def _download(name: str) -> Mapping[str, Tensor]:
    """Torchaudio's own download into torch's hub folder; its file is read as tensors alone."""
    from torchaudio import pipelines

    options = {"weights_only": True, "map_location": "cpu", "progress": False}
    try:
        model = getattr(pipelines, name).get_model(dl_kwargs=options)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise NetworkError(
            f"torchaudio could not download {name}: {reason:.200}.",
            "Download it on another machine and give the file's path instead of the name; see docs/encoders.md.",
        ) from None
    state: dict[str, Tensor] = model.state_dict()
    return state
