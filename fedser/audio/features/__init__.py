"""Features of utterances: one definition for CPU and GPU, whatever else is in the batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch

from fedser.audio.features import egemaps as _egemaps
from fedser.audio.features import functionals as _functionals
from fedser.audio.features import logmel as _logmel
from fedser.audio.features import pretrained as _pretrained
from fedser.audio.features import waveform as _waveform
from fedser.audio.features.frames import groups, peak_normalised
from fedser.audio.features.settings import FeatureSettings
from fedser.errors import ConfigError
from fedser.pretrained import Pretrained

__all__ = ["FeatureSettings", "extract", "names", "shape", "version"]

# Raised with every change that moves values: cached features of another number are not used.
ALGORITHM = 2
# Samples worked on together: a minute keeps the tables of a group near 100 MB.
BUDGET = 60 * 16_000


def shape(settings: FeatureSettings) -> tuple[int, ...]:
    """Shape of one utterance's features: (D,) for descriptors, (mels, frames) or (1, samples)."""
    match settings.kind:
        case "functionals":
            return (len(_functionals.names()),)
        case "egemaps":
            return (_egemaps.SIZE,)
        case "logmel":
            return (settings.mels, _logmel.frames(settings.seconds))
        case "waveform":
            return (1, _waveform.samples(settings.seconds))
        case "pretrained":
            return (_pretrained.size(_encoder(settings)),)


def names(settings: FeatureSettings) -> list[str]:
    """What each entry of ``functionals`` or ``egemaps`` is; empty for the other kinds.

    Raises:
        DependencyError: egemaps without the opensmile package.
    """
    match settings.kind:
        case "functionals":
            return _functionals.names()
        case "egemaps":
            return _egemaps.names()
        case _:
            return []


def version(settings: FeatureSettings) -> str:
    """A short digest of everything that decides the values: the settings in use and the algorithm's number.

    Raises:
        DependencyError: egemaps without the opensmile package.
    """
    parts: dict[str, object] = {"kind": settings.kind, "algorithm": ALGORITHM, "shape": shape(settings)}
    if settings.kind == "functionals":
        parts["names"] = _functionals.names()
    if settings.kind == "egemaps":
        parts["opensmile"] = _egemaps.version()
    if settings.kind == "waveform":
        parts["short"] = "repeated"
    if settings.pretrained is not None:
        parts["pretrained"] = settings.pretrained.model_dump() | {"algorithm": _pretrained.ALGORITHM}
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return f"{settings.kind}-{digest[:16]}"


@torch.no_grad()
def extract(
    waveforms: Sequence[np.ndarray], settings: FeatureSettings, device: torch.device = torch.device("cpu")
) -> torch.Tensor:
    """Features of utterances at 16 kHz, each float [T] of any length; unnormalised.

    Each utterance is freed from its mean and scaled to a peak of 1 first, so gain does not matter.

    Returns:
        float32 [N, \\*shape(settings)] on the CPU, in the order given.

    Raises:
        AudioError: an utterance without samples or with values that are not numbers.
        DependencyError: egemaps without the opensmile package, pretrained without the weights.
    """
    found = torch.empty(len(waveforms), *shape(settings))
    for group in groups([len(waveform) for waveform in waveforms], BUDGET):
        signals = [peak_normalised(waveforms[index]) for index in group]
        match settings.kind:
            case "functionals":
                rows = _functionals.functionals(signals, device)
            case "logmel":
                rows = _logmel.logmel(signals, settings.mels, settings.seconds, device)
            case "waveform":
                rows = _waveform.waveform(signals, settings.seconds)
            case "egemaps":
                rows = _egemaps.egemaps(signals)
            case "pretrained":
                rows = _pretrained.pretrained(signals, _encoder(settings), device)
        found[group] = rows.cpu()
    return found


def _encoder(settings: FeatureSettings) -> Pretrained:
    if settings.pretrained is None:
        raise ConfigError("The features pretrained name no encoder.", "Set features.pretrained: family, size, weights.")
    return settings.pretrained
