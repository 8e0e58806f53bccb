"""``egemaps``: the 88 eGeMAPS functionals through the opensmile package, for comparison.

opensmile has its own licence (free for research only); fedser neither contains nor needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version as installed
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedser.audio.features.frames import SAMPLE_RATE
from fedser.errors import DependencyError

SIZE = 88


@lru_cache(maxsize=1)
def _smile() -> Any:  # noqa: ANN401 (an optional package's object)
    """The one extractor of this process: making it takes longer than an utterance.

    Raises:
        DependencyError: opensmile is not installed.
    """
    try:
        import opensmile
    except ImportError:
        raise DependencyError(
            "The features 'egemaps' need the opensmile package.",
            "Install it: pip install 'fedser[opensmile]'",
        ) from None
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )


def egemaps(waveforms: Sequence[Tensor]) -> Tensor:
    """eGeMAPS v02 functionals of peak-normalised utterances; float32 [B, 88].

    Raises:
        DependencyError: opensmile is not installed.
    """
    smile = _smile()
    rows = [np.asarray(smile.process_signal(x.numpy(), SAMPLE_RATE).to_numpy()[0]) for x in waveforms]
    found = torch.from_numpy(np.stack(rows).astype(np.float32))
    return torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def names() -> list[str]:
    """opensmile's names of the 88 functionals."""
    return [str(name) for name in _smile().feature_names]


def version() -> str:
    """opensmile's version: another one may give other values."""
    _smile()
    return str(installed("opensmile"))
