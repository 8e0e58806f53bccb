"""One site by itself: from raw features to a model that the guard let pass, without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedser.adapt import scores
from fedser.adapt.guard import Candidate, Choice, Guarded, GuardSettings, adapt_guarded, candidate, choose
from fedser.adapt.loop import adapt
from fedser.adapt.method import Method
from fedser.adapt.schedule import Schedule
from fedser.adapt.site import Answer, SiteModel, class_mask
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.bundle import Bundle
from fedser.errors import UsageError


@dataclass(frozen=True)
class LocalRun:
    """The result of an adaptation at one site.

    Attributes:
        site: the model that answers, with the site's statistics.
        answer: its answers for the site's own speech.
        history: its loss curve; empty for the source model.
        steps: its gradient steps.
        choice: what the guard decided; None where it was switched off.
        candidates: class probabilities [N, C] of every model that the guard saw.
    """

    site: SiteModel
    answer: Answer
    history: list[dict[str, float]]
    steps: int
    choice: Choice | None = None
    candidates: Mapping[str, Tensor] = field(default_factory=dict)


def adapt_site(
    bundle: Bundle,
    raw: Tensor,
    speakers: Sequence[str | None],
    methods: Sequence[Method],
    *,
    seed: int,
    device: torch.device,
    schedule: Schedule | Mapping[str, Schedule] | None = None,
    normalisation: NormalisationSettings | None = None,
    allowed: Sequence[str] | None = None,
    unknown_below: float = 0.0,
    guard: GuardSettings | None = GuardSettings(),
    on_method: Callable[[str], None] | None = None,
) -> LocalRun:
    """Adapt a bundle to one site's unlabelled speech.

    Args:
        bundle: verified.
        raw: features [N, *shape] of the site's utterances, not normalised.
        speakers: N ids, None where unknown.
        methods: see :func:`fedser.adapt.make`; the guard chooses among them and the source model.
        seed: of everything that is drawn.
        device: where the models are adapted.
        schedule: of all methods, or of each by its name; a method's own without it.
        normalisation: the bundle's rule when None.
        allowed: the emotions that the site has; all of the bundle's when None.
        unknown_below: confidence below which the answer is ``unknown``.
        guard: None switches it off: the one method is used, whatever it did.
        on_method: called with each method's name when it is done.

    Raises:
        UsageError: ``allowed`` names an emotion that the bundle does not know, or several methods and no guard.
        TooLittleDataError: without guard, fewer utterances than the method needs.
    """
    if guard is None and len(methods) != 1:
        raise UsageError("Without the guard nobody chooses among methods.", "Name one --method.")
    mask = class_mask(bundle.header.classes, allowed or bundle.header.classes)
    normaliser = SiteNormaliser.fit(raw, speakers, normalisation or bundle.header.normalisation)
    model, x, linear = bundle.classifier().to(device), normaliser.transform(raw, speakers), bundle.linear()
    if guard is None:
        own = schedule.get(methods[0].name) if isinstance(schedule, Mapping) else schedule
        done = adapt(model, x, methods[0], own, seed=seed, linear=linear, class_mask=mask)
        name, made = methods[0].name, Guarded(done.model, None, done.history, done.steps)
    else:
        made = adapt_guarded(
            *(model, x, methods, schedule),
            seed=seed,
            linear=linear,
            class_mask=mask,
            temperature=bundle.header.temperature,
            distance=distance(bundle, raw),
            settings=guard,
            on_method=on_method,
        )
        name = made.choice.name if made.choice else ""
    options = {method.name: method.settings.model_dump(mode="json") for method in methods}.get(name, {})
    site = SiteModel.adapted(
        bundle,
        made.model.cpu(),
        normaliser,
        method=name,
        options=options,
        allowed=allowed,
        unknown_below=unknown_below,
        seed=seed,
    )
    seen = {each.name: each.probabilities.cpu() for each in made.candidates}
    return LocalRun(site, site.answer(raw, speakers), made.history, made.steps, made.choice, seen)


def guard_personal(
    bundle: Bundle,
    raw: Tensor,
    x: Tensor,
    model: nn.Module,
    *,
    method: str,
    mask: Tensor | None,
    settings: GuardSettings = GuardSettings(),
) -> tuple[Choice, tuple[Candidate, ...]]:
    """Decide between the source model and the personal one that a study left at the site.

    Args:
        bundle: what the study adapted.
        raw: the site's features [N, *shape], not normalised.
        x: the same, normalised.
        model: the personal one, on the CPU.
        method: what the study's orders named.
        mask: bool [C], true for the classes that the site has; None means all.
        settings: the guard's.
    """
    known = bundle.header.temperature
    found = tuple(
        candidate(name, each, x.cpu(), temperature=known, class_mask=mask)
        for name, each in (("source", bundle.classifier()), (method, model))
    )
    choice = choose(
        found, x.cpu(), temperature=known, class_mask=mask, distance=distance(bundle, raw), settings=settings
    )
    return choice, found


def distance(bundle: Bundle, raw: Tensor) -> float:
    """How far the site's recordings lie from the source's, see :func:`fedser.adapt.scores.distance`."""
    normaliser = bundle.normaliser()
    return scores.distance(normaliser.transform(raw, [None] * len(raw)))
