"""The guard: per site, which of several adapted models to use, or none of them, decided without labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import Field
from torch import Tensor, nn

from fedser.adapt import scores
from fedser.adapt.loop import adapt
from fedser.adapt.method import Method
from fedser.adapt.methods import METHODS, make
from fedser.adapt.probabilities import outputs, probabilities
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.errors import UsageError
from fedser.models import EmotionClassifier, LinearClassifier

CANDIDATES = tuple(name for name in ("source", "shot", "nrc", "aad", "ecan", "fedser") if name in METHODS)
DEFAULT = CANDIDATES[-1]  # what adapts where no method is named and nobody guards


class GuardSettings(Settings):
    """When the source model is kept.

    Attributes:
        fewest: utterances below which nothing is adapted to.
        farthest: median distance from the source's recordings, in its standard deviations, from which recordings
            are no speech that the source knows (:func:`fedser.adapt.scores.distance`).
        strangest: the same for how features go together (:func:`fedser.adapt.scores.variance_shift`).
    """

    fewest: int = Field(default=30, ge=2)
    farthest: float = Field(default=1.5, gt=0)
    strangest: float = Field(default=0.55, gt=0)


@dataclass(frozen=True)
class Candidate:
    """One model that the guard may choose.

    Attributes:
        name: of the method; the first candidate is ``source``.
        model: features [B, \\*shape] to logits [B, C].
        probabilities: its answers for the site's own utterances [N, C].
        embedding: its bottleneck outputs [N, d]; None where it has none.
    """

    name: str
    model: nn.Module
    probabilities: Tensor
    embedding: Tensor | None


@dataclass(frozen=True)
class Choice:
    """What the guard chose.

    Attributes:
        name: the candidate's.
        reason: one sentence.
        scores: candidate → label-free score → value.
    """

    name: str
    reason: str
    scores: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Guarded:
    """The result of an adaptation under guard.

    Attributes:
        model: the chosen candidate's, in evaluation mode.
        choice: which, and why; None where nothing was chosen.
        history: of the chosen candidate's adaptation.
        steps: gradient steps of the chosen candidate.
        candidates: all of them.
    """

    model: nn.Module
    choice: Choice | None
    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    candidates: tuple[Candidate, ...] = ()


def candidate(
    name: str, model: nn.Module, x: Tensor, *, temperature: float = 1.0, class_mask: Tensor | None = None
) -> Candidate:
    """What the guard needs to know of a model, from one full pass over the site's utterances x [N, \\*shape]."""
    x = x.to(next(model.parameters()).device)
    mask = None if class_mask is None else class_mask.to(x.device)
    if not isinstance(model, EmotionClassifier):  # the temperature was calibrated for the classifier
        return Candidate(name, model, probabilities(model, x, 1.0, mask), None)
    return Candidate(name, model, probabilities(model, x, temperature, mask), outputs(model, x, mask)[0])


def choose(
    candidates: Sequence[Candidate],
    x: Tensor,
    *,
    temperature: float = 1.0,
    class_mask: Tensor | None = None,
    distance: float | None = None,
    settings: GuardSettings = GuardSettings(),
) -> Choice:
    """Choose one of the candidates without labels.

    Args:
        candidates: of one site; one of them is ``source``.
        x: the site's normalised features [N, \\*shape].
        temperature: divides the logits.
        class_mask: bool [C], true for the classes that can occur at the site; None means all.
        distance: of the recordings from the source's, where it is known (:func:`fedser.adapt.scores.distance`).
        settings: see :class:`GuardSettings`.

    Returns:
        The choice; the source where nothing else is better founded.
    """
    table = {each.name: _scores(each, candidates) for each in candidates}
    if reason := _unfit(source_of(candidates), x, distance, settings):
        return Choice("source", reason, table)
    best = max(candidates, key=lambda each: table[each.name]["consensus"])
    return Choice(best.name, f"{best.name} agrees best with the other candidates.", table)


def adapt_guarded(
    model: EmotionClassifier,
    x: Tensor,
    methods: Sequence[Method] | None = None,
    schedule: Schedule | Mapping[str, Schedule] | None = None,
    *,
    seed: int,
    linear: LinearClassifier | None = None,
    class_mask: Tensor | None = None,
    temperature: float = 1.0,
    distance: float | None = None,
    settings: GuardSettings = GuardSettings(),
    on_method: Callable[[str], None] | None = None,
) -> Guarded:
    """Adapt by each method and keep what the guard chooses.

    Args:
        model: the source model; it is a candidate itself.
        x: normalised features [N, \\*shape].
        methods: those of :data:`CANDIDATES` when None.
        schedule: of all methods, or of each by its name; a method's own without it.
        seed, linear, class_mask: as in :func:`fedser.adapt.adapt`.
        temperature, distance: as in :func:`choose`.
        settings: the guard's.
        on_method: called with each method's name when it is done.

    Raises:
        UsageError, TooLittleDataError, ConfigError: see :func:`fedser.adapt.adapt`.
    """
    wanted = [make(name) for name in CANDIDATES] if methods is None else list(methods)
    found = [candidate("source", copy.deepcopy(model), x, temperature=temperature, class_mask=class_mask)]
    runs: dict[str, tuple[list[dict[str, float]], int]] = {}
    for method in wanted:
        if method.name == "source" or len(x) < method.minimum:
            continue
        own = schedule.get(method.name) if isinstance(schedule, Mapping) else schedule
        done = adapt(model, x, method, own, seed=seed, linear=linear, class_mask=class_mask)
        runs[method.name] = (done.history, done.steps)
        found.append(candidate(method.name, done.model, x, temperature=temperature, class_mask=class_mask))
        if on_method is not None:
            on_method(method.name)
    choice = choose(found, x, temperature=temperature, class_mask=class_mask, distance=distance, settings=settings)
    chosen = next(each for each in found if each.name == choice.name)
    history, steps = runs.get(choice.name, ([], 0))
    return Guarded(chosen.model.eval(), choice, history, steps, tuple(found))


def source_of(candidates: Sequence[Candidate]) -> Candidate:
    """The source model among the candidates.

    Raises:
        UsageError: it is not there.
    """
    for each in candidates:
        if each.name == "source":
            return each
    raise UsageError("The guard was given no source model.", "Let one candidate be named source.")


def _unfit(source: Candidate, x: Tensor, distance: float | None, settings: GuardSettings) -> str:
    """Why nothing should be adapted to these recordings; empty where nothing speaks against it."""
    if len(x) < settings.fewest:
        return f"{len(x)} utterances are too few to adapt to (fewer than {settings.fewest})."
    if distance is not None and distance > settings.farthest:
        return (
            f"The recordings are unlike the source's speech (distance {distance:.2f}, at most {settings.farthest:g})."
        )
    shift = scores.variance_shift(source.model, x.to(next(source.model.parameters()).device))
    if shift > settings.strangest:
        return f"The features go together unlike the source's ({shift:.2f}, at most {settings.strangest:g})."
    return ""


def _scores(one: Candidate, candidates: Sequence[Candidate]) -> dict[str, float]:
    p, source = one.probabilities, source_of(candidates).probabilities
    others = [scores.agreement(p, each.probabilities) for each in candidates if each is not one]
    return {
        "entropy": scores.entropy(p),
        "mutual_information": scores.mutual_information(p),
        "density": scores.soft_neighbourhood_density(p),
        "balance": scores.balance(p),
        "changed": scores.changed(p, source),
        "consensus": fmean(others) if others else 1.0,
    }
