"""The registry of references."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedser.compute import generator
from fedser.config import Settings, validate
from fedser.errors import UsageError, did_you_mean
from fedser.models import EmotionClassifier, initialise
from fedser.transfer.coral import Coral
from fedser.transfer.dann import Dann
from fedser.transfer.didan import Didan
from fedser.transfer.emodna import EmoDna
from fedser.transfer.reference import Reference

REFERENCES: dict[str, type[Reference]] = {"dann": Dann, "coral": Coral, "didan": Didan, "emodna": EmoDna}


def options_of(name: str, options: Mapping[str, object] | None = None) -> Settings:
    """The settings of a reference, from plain values: what ``make`` checks, before any work.

    Raises:
        UsageError: there is no reference of this name.
        ConfigError: an option is unknown to the reference or out of range.
    """
    if name not in REFERENCES:
        meant = did_you_mean(name.lower().replace("-", ""), REFERENCES)
        raise UsageError(f"There is no reference '{name}'.{meant}", f"Choose one of {', '.join(REFERENCES)}.")
    return validate(REFERENCES[name].settings_type, dict(options or {}), f"the options of the reference {name}")


def make(name: str, model: EmotionClassifier, options: Mapping[str, object] | None = None, *, seed: int) -> Reference:
    """Build a reference by name for one training of ``model``; its layers' first weights are drawn from ``seed``.

    Raises:
        UsageError: there is no reference of this name.
        ConfigError: an option is unknown to the reference or out of range.
    """
    settings = options_of(name, options)
    with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the global generator
        reference = REFERENCES[name](settings, model)
    initialise(reference, generator(seed, "transfer", name))
    return reference
