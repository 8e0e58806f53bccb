"""``fedser adapt`` from recordings to a finished folder; what it holds stands in :mod:`fedser.evaluate.outputs`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedser import adapt as adaptation
from fedser import bundle as bundles
from fedser import compute
from fedser.adapt.method import Gradient, Method
from fedser.adapt.schedule import Schedule
from fedser.adapt.site import adapt_site, check_threshold, class_mask
from fedser.audio import dataset, labels
from fedser.audio.normalise import NormalisationSettings
from fedser.config import assign, validate
from fedser.evaluate import outputs
from fedser.files import output_folder


@dataclass(frozen=True)
class LocalSettings:
    """What ``fedser adapt`` was asked for; None stands for the bundle's or the method's own choice."""

    data: Path
    bundle: Path | None = None
    signer: str | None = None
    method: str = "ecan"
    options: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    corpus: str | None = None
    speaker_from: str | None = None
    normalisation: str | None = None
    epochs: int | None = None
    unknown_below: float = 0.0
    seed: int = 0
    device: str = "auto"


def run(settings: LocalSettings, out: Path, *, command: str) -> dict[str, Any]:
    """Adapt and write everything to ``out``; returns what the command prints.

    Raises:
        FedserError: the leaf that fits; nothing is half-written.
    """
    begin = time.perf_counter()
    compute.one_thread()
    device = compute.device(settings.device)
    bundle = bundles.read(settings.bundle, signer=settings.signer)
    check_threshold(settings.unknown_below)
    allowed = allowed_classes(settings.classes, bundle.header.classes)
    method = adaptation.make(settings.method, _options(settings.options))
    rule = (
        validate(NormalisationSettings, {"rule": settings.normalisation}, "--normalisation")
        if settings.normalisation
        else bundle.header.normalisation
    )
    output_folder(out)
    data = dataset.load(
        settings.data,
        bundle.header.features,
        corpus=settings.corpus,
        speaker_from=settings.speaker_from,
        device=device,
    )
    local = adapt_site(
        bundle,
        data.raw,
        data.speakers,
        method,
        seed=settings.seed,
        device=device,
        schedule=_schedule(method, settings.epochs),
        normalisation=rule,
        allowed=allowed,
        unknown_below=settings.unknown_below,
    )
    return outputs.write(out, bundle, data, local, command=command, seconds=time.perf_counter() - begin)


def allowed_classes(given: tuple[str, ...] | None, known: Sequence[str]) -> tuple[str, ...] | None:
    """The emotions of ``--classes`` as the bundle writes them, refused before any work.

    Raises:
        UsageError: one that the bundle does not know, or none.
    """
    if given is None:
        return None
    allowed = tuple(dict.fromkeys(labels.ALIASES.get(labels.normalise(word), word) for word in given))
    class_mask(known, allowed)
    return allowed


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        assign(options, pair)
    return options


def _schedule(method: Method, epochs: int | None) -> Schedule | None:
    if epochs is None:
        return None
    base = method.schedule if isinstance(method, Gradient) else Schedule()
    return base.model_copy(update={"epochs": epochs, "steps": None})
