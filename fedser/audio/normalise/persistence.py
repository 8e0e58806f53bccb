"""A normaliser as tensors and a JSON header, and back, with every value checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedser.audio.normalise.settings import NormalisationSettings
from fedser.audio.normalise.statistics import Moments
from fedser.config import validate
from fedser.errors import BundleFormatError, ConfigError

FORMAT = 1
RULES = ("corpus", "speaker", "shrunk", "utterance")
_KEYS = {"format", "settings", "shape", "rule", "kappa", "reason", "speakers"}
_PARTS = ("count", "mean", "m2")


@dataclass(frozen=True)
class State:
    """The checked content of a stored normaliser."""

    settings: NormalisationSettings
    shape: tuple[int, ...]
    rule: str
    kappa: float
    reason: str
    site: Moments | None
    speakers: dict[str, Moments]


def tensors(site: Moments | None, speakers: Mapping[str, Moments]) -> dict[str, Tensor]:
    """Statistics stacked into at most six tensors; speakers in the order of their sorted names."""
    stored = {} if site is None else _stack("site", [site])
    ordered = [speakers[name] for name in sorted(speakers)]
    return {**stored, **(_stack("speakers", ordered) if ordered else {})}


def parse(stored: Mapping[str, Tensor], header: Mapping[str, object]) -> State:
    """Check and rebuild.

    Raises:
        BundleFormatError: naming what does not fit.
    """
    if set(header) != _KEYS or header["format"] != FORMAT:
        raise _junk("its header has other entries than this version writes")
    try:
        settings = validate(NormalisationSettings, header["settings"], "its settings entry")
    except ConfigError as error:
        raise _junk(str(error).rstrip(".")) from None
    shape, names = _shape(header["shape"]), _names(header["speakers"])
    rule, reason = header["rule"], header["reason"]
    kappa = header["kappa"]
    if rule not in RULES or not isinstance(reason, str):
        raise _junk("its rule is not known")
    if isinstance(kappa, bool) or not isinstance(kappa, (int, float)) or not 0 <= kappa < math.inf:
        raise _junk("κ is not a number from 0 up")
    groups = ([] if rule == "utterance" else ["site"]) + (["speakers"] if names else [])
    if set(stored) != {f"{group}.{part}" for group in groups for part in _PARTS}:
        raise _junk("its tensors are not the ones that its header calls for")
    if rule == "utterance" and names:
        raise _junk("it names speakers but has no statistics")
    site = None if rule == "utterance" else _unstack(stored, "site", 1, shape[0])[0]
    speakers = _unstack(stored, "speakers", len(names), shape[0]) if names else []
    paired = dict(zip(names, speakers, strict=True))
    return State(settings, shape, str(rule), float(kappa), reason, site, paired)


def _stack(group: str, items: list[Moments]) -> dict[str, Tensor]:
    return {
        f"{group}.count": torch.tensor([item.count for item in items], dtype=torch.int64),
        f"{group}.mean": torch.stack([item.mean for item in items]).cpu(),
        f"{group}.m2": torch.stack([item.m2 for item in items]).cpu(),
    }


def _unstack(stored: Mapping[str, Tensor], group: str, rows: int, width: int) -> list[Moments]:
    count, mean, m2 = (stored[f"{group}.{part}"] for part in _PARTS)
    if not all(isinstance(values, Tensor) for values in (count, mean, m2)):
        raise _junk("its statistics are not tensors")
    if count.dtype != torch.int64 or count.shape != (rows,) or bool((count < 1).any()):
        raise _junk(f"{group}.count is not a list of {rows} positive integers")
    for part, values in (("mean", mean), ("m2", m2)):
        fits = values.dtype == torch.float64 and values.shape == (rows, width)
        if not fits or not bool(torch.isfinite(values).all()):
            raise _junk(f"{group}.{part} is not a finite float64 table of {rows} by {width}")
    if bool((m2 < 0).any()):
        raise _junk(f"{group}.m2 has negative sums of squares")
    return [Moments(int(count[i]), mean[i].clone(), m2[i].clone()) for i in range(rows)]


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)) or len(value) not in (1, 2):
        raise _junk("its shape is not a list of one or two sizes")
    if any(isinstance(size, bool) or not isinstance(size, int) or not 0 < size < 2**31 for size in value):
        raise _junk("its shape has sizes that are not positive integers")
    return tuple(value)


def _names(value: object) -> list[str]:
    if not isinstance(value, (list, tuple)) or any(not isinstance(name, str) for name in value):
        raise _junk("its speakers are not a list of names")
    if list(value) != sorted(set(value)):
        raise _junk("its speakers are not sorted or not unique")
    return list(value)


def _junk(why: str) -> BundleFormatError:
    return BundleFormatError(f"The stored normaliser is damaged: {why}.", "Adapt again to write a new one.")
