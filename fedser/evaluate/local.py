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
from fedser.adapt.guard import CANDIDATES, DEFAULT, GuardSettings
from fedser.adapt.local import adapt_site
from fedser.adapt.method import Gradient, Method
from fedser.adapt.schedule import Schedule
from fedser.adapt.site import check_threshold, class_mask
from fedser.audio import dataset, labels
from fedser.audio.normalise import NormalisationSettings
from fedser.config import assign, validate
from fedser.console import progress
from fedser.errors import UsageError
from fedser.evaluate import outputs
from fedser.files import output_folder


@dataclass(frozen=True)
class LocalSettings:
    """What ``fedser adapt`` was asked for; None stands for the bundle's or the method's own choice.

    With ``guard`` and no ``method``, all candidates of the guard are tried.
    """

    data: Path
    bundle: Path | None = None
    signer: str | None = None
    method: str | None = None
    guard: bool = True
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
    methods = _methods(settings)
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
    with progress("adapting", sum(method.name != "source" for method in methods)) as step:
        local = adapt_site(
            *(bundle, data.raw, data.speakers, methods),
            seed=settings.seed,
            device=device,
            schedule=_schedules(methods, settings.epochs),
            normalisation=rule,
            allowed=allowed,
            unknown_below=settings.unknown_below,
            guard=GuardSettings() if settings.guard else None,
            on_method=lambda _: step(),
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


def _methods(settings: LocalSettings) -> list[Method]:
    """The method that was named, or all that the guard chooses among."""
    if settings.method is not None or not settings.guard:
        return [adaptation.make(settings.method or DEFAULT, _options(settings.options))]
    if settings.options:
        raise UsageError(
            f"The guard tries several methods, and '{settings.options[0]}' is a setting of one.",
            "Name the --method that it belongs to.",
        )
    return [adaptation.make(name) for name in CANDIDATES]


def _options(pairs: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        assign(options, pair)
    return options


def _schedules(methods: Sequence[Method], epochs: int | None) -> dict[str, Schedule] | None:
    """Each method's own schedule over another number of epochs."""
    if epochs is None:
        return None
    own = {each.name: each.schedule if isinstance(each, Gradient) else Schedule() for each in methods}
    return {name: each.model_copy(update={"epochs": epochs, "steps": None}) for name, each in own.items()}
