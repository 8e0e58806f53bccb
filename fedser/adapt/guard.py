"""The guard: per site, which of several adapted models to use, or none of them, decided without labels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from pydantic import Field
from torch import Tensor, nn

from fedser.adapt import scores
from fedser.adapt.candidates import Candidate, candidate, source_of, table
from fedser.adapt.loop import adapt
from fedser.adapt.method import Method
from fedser.adapt.methods import METHODS, make
from fedser.adapt.schedule import Schedule
from fedser.config import Settings
from fedser.models import EmotionClassifier, LinearClassifier

__all__ = [
    "CANDIDATES",
    "DEFAULT",
    "Candidate",
    "Choice",
    "GuardSettings",
    "Guarded",
    "adapt_guarded",
    "candidate",
    "choose",
    "decide",
]

CANDIDATES = tuple(name for name in ("source", "shot", "nrc", "aad", "ecan", "fedser") if name in METHODS)
DEFAULT = CANDIDATES[-1]  # what adapts where no method is named and nobody guards


class GuardSettings(Settings):
    """What decides; docs/guard.md says where the values come from. No label has a part in a choice.

    Attributes:
        fewest: utterances below which nothing is adapted to.
        farthest: median distance from the source's recordings, in its standard deviations, from which recordings
            are no speech that the source knows (:func:`fedser.adapt.scores.distance`).
        strangest: the same for how features go together (:func:`fedser.adapt.scores.variance_shift`).
        margin: weight of the prototype margin against the predictability, see :func:`worth`.
        company: weight of the other candidates' mean worth against that of the best one.
        least: evidence below which the source is kept, times √N: few utterances have to say it more clearly.
        alone: how many times clearer a single candidate has to be: there is no other one to ask.
        most_changed: share of the source's answers that a candidate may change; above it, clusters swap emotions.
    """

    fewest: int = Field(default=30, ge=2)
    farthest: float = Field(default=1.8, gt=0)
    strangest: float = Field(default=0.58, gt=0)
    margin: float = Field(default=0.5, ge=0)
    company: float = Field(default=4.0, ge=0)
    least: float = Field(default=0.1, ge=0)
    alone: float = Field(default=3.0, ge=1)
    most_changed: float = Field(default=0.4, ge=0, le=1)


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
        temperature, class_mask: of the source's answers; the candidates' probabilities hold them already.
        distance: of the recordings from the source's, where it is known (:func:`fedser.adapt.scores.distance`).
        settings: see :class:`GuardSettings`.

    Returns:
        The choice; the source where nothing else is better founded.
    """
    told = table(candidates, x, temperature=temperature, class_mask=class_mask)
    for row in told.values():
        row["worth"] = worth(row, told["source"], settings)
    if reason := _unfit(source_of(candidates), x, distance, settings):
        return Choice("source", reason, told)
    return Choice(*decide(told, len(x), settings), told)


def decide(
    told: Mapping[str, Mapping[str, float]], utterances: int, settings: GuardSettings = GuardSettings()
) -> tuple[str, str]:
    """The rule on scores alone: the chosen candidate's name, and one sentence why.

    The evidence weighs the best candidate's worth with the mean of the others': where adapting by any method makes
    answers follow the recordings, the best of them is no accident.

    Args:
        told: candidate → score → value, with ``source`` among the candidates.
        utterances: of the site.
        settings: the guard's.
    """
    gains = {name: worth(row, told["source"], settings) for name, row in told.items() if name != "source"}
    fit = [name for name in gains if told[name]["changed"] <= settings.most_changed]
    if not gains:
        return "source", "There is no other candidate."
    if not fit:
        return "source", f"Adapting changed more than {100 * settings.most_changed:.0f} % of the source's answers."
    best = max(fit, key=lambda name: gains[name])
    others = [gain for name, gain in gains.items() if name != best]
    evidence = (gains[best] + settings.company * fmean(others or [gains[best]])) / (1 + settings.company)
    needed = settings.least * (1 if others else settings.alone) / math.sqrt(utterances)
    weighed = f"(evidence {evidence:+.3f}, needed {needed:+.3f})"
    if evidence <= needed:
        return "source", f"Adapted answers follow the recordings no better than the source's {weighed}."
    return best, f"Its answers follow the recordings better than the source's {weighed}."


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


def worth(row: Mapping[str, float], source: Mapping[str, float], settings: GuardSettings) -> float:
    """A candidate's gain in predictability over the source, less its gain in prototype margin times the weight.

    Answers that became more predictable from the recordings are worth having. Those that only became more compact in
    the source's own embedding follow the source's structure, not the site's, so that part is taken off.
    """
    return (row["predictability"] - source["predictability"]) - settings.margin * (
        row["prototype_margin"] - source["prototype_margin"]
    )
