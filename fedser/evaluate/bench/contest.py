"""All methods on one target, side by side: what one of them made serves the others that build on it.

Besides the methods of :mod:`fedser.adapt` there are rows of other kinds:

- ``guard``: the model that the label-free guard picks among the candidates' adapted models of the same cell.
- ``dann``, ``coral``, ``didan``, ``emodna`` (:mod:`fedser.transfer`): labelled source and unlabelled target together,
  on one machine, which no site and no provider of this toolkit has. Without its target each of them is the row
  ``source``.
- ``supervised``: the oracle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fedser.adapt import Schedule, adapt, guard, make, probabilities
from fedser.adapt.guard import CANDIDATES, GuardSettings
from fedser.adapt.scores import distance
from fedser.audio.normalise import SiteNormaliser
from fedser.config import validate
from fedser.errors import FedserError
from fedser.evaluate.bench.supervised import leave_one_speaker_out
from fedser.evaluate.protocols import View
from fedser.evaluate.source import SourceModel
from fedser.models import EmotionClassifier, ModelSettings
from fedser.train import TrainSettings
from fedser.transfer import REFERENCES, transfer

GUARD = "guard"
SUPERVISED = "supervised"


@dataclass(frozen=True)
class Answers:
    """One method under one protocol.

    Attributes:
        probabilities: [N, C] of all utterances of the target.
        seconds: adaptation and answers; of the guard all its candidates' adaptations as well.
        chosen: what the guard chose in each view; empty for all other rows.
    """

    probabilities: Tensor
    seconds: float
    chosen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Labelled:
    """The labelled source.

    Attributes:
        x: normalised features [N, \\*shape], for methods that see them; so are labels and speakers.
        y: class numbers, int64 [N].
        speakers: of each utterance, None where unknown.
        statistics: of all of it, which a bundle publishes: the guard tells by them what is no speech.
    """

    x: Tensor
    y: Tensor
    speakers: tuple[str | None, ...]
    statistics: SiteNormaliser


@dataclass(frozen=True)
class Made:
    """A method's model in one view, what divides its logits, what it cost, and what the guard chose."""

    model: nn.Module
    temperature: float
    seconds: float
    chosen: str = ""


@dataclass(frozen=True)
class Contest:
    """Everything that the methods of one job share.

    Attributes:
        models: what the provider publishes.
        source: what it keeps.
        classes: emotion names.
        options: settings by method.
        schedule: of methods with gradient steps; each method's own when None.
        model: what a classifier looks like.
        train: how it is trained.
        seed: of all of them.
    """

    models: SourceModel
    source: Labelled
    classes: tuple[str, ...]
    options: Mapping[str, Mapping[str, Any]]
    schedule: Schedule | None
    model: ModelSettings
    train: TrainSettings
    seed: int

    def run(
        self, views: Sequence[View], labels: Tensor, wanted: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], Answers | FedserError]:
        """Answers of each wanted (method, protocol), or why there are none: a table outlives one method's failure.

        Args:
            views: of the target; together they ask about each utterance once under each protocol.
            labels: class numbers of the target, int64 [N]; for the oracle alone.
            wanted: methods and protocols, in the order of the rows.
        """
        joined = {key: torch.zeros(len(labels), len(self.classes)) for key in wanted}
        seconds = dict.fromkeys(wanted, 0.0)
        chosen: dict[tuple[str, str], tuple[str, ...]] = dict.fromkeys(wanted, ())
        failed: dict[tuple[str, str], FedserError] = {}
        for view in views:
            table = _Table(self, view)
            for key in wanted:
                if key in failed:
                    continue
                try:
                    p, spent, choice = table.answer(*key, labels)
                except FedserError as error:
                    failed[key] = error
                    continue
                joined[key][view.queries[key[1]].rows] = p
                seconds[key] += spent
                chosen[key] += (choice,) if choice else ()
        return {key: failed.get(key) or Answers(joined[key], seconds[key], chosen[key]) for key in wanted}


@dataclass
class _Table:
    """The models of one view, each made once."""

    contest: Contest
    view: View
    done: dict[str, Made] = field(default_factory=dict)

    def answer(self, method: str, protocol: str, labels: Tensor) -> tuple[Tensor, float, str]:
        """Probabilities, seconds, and what the guard chose."""
        query, view = self.view.queries[protocol], self.view
        if method == SUPERVISED:
            begin = time.perf_counter()
            p = leave_one_speaker_out(view.x, labels[view.rows], view.speakers, self.contest.classes)
            return p, time.perf_counter() - begin, ""
        made = self.made(method)
        begin = time.perf_counter()
        p = probabilities(made.model, query.x, made.temperature)
        return p, made.seconds + time.perf_counter() - begin, made.chosen

    def made(self, name: str) -> Made:
        """A method's model; what the guard or an earlier row needed is there already."""
        if name not in self.done:
            make_it = self._guarded if name == GUARD else self._transferred if name in REFERENCES else self._adapted
            self.done[name] = make_it(name)
        return self.done[name]

    def _adapted(self, name: str) -> Made:
        begin = time.perf_counter()
        own = self.contest
        method = make(name, own.options.get(name, {}))
        if len(self.view.x) < method.minimum:
            method = make("source")  # a site too small for a method stays as it is
        linear = own.models.linear
        model = adapt(own.models.model, self.view.x, method, own.schedule, seed=own.seed, linear=linear).model
        # The temperature was calibrated for the classifier; logistic regression needs none.
        temperature = own.models.temperature if isinstance(model, EmotionClassifier) else 1.0
        return Made(model, temperature, time.perf_counter() - begin)

    def _transferred(self, name: str) -> Made:
        begin = time.perf_counter()
        own = self.contest
        both = transfer(
            name,
            own.source.x,
            own.source.y,
            own.source.speakers,
            self.view.x,
            own.classes,
            model=own.model,
            train=own.train,
            options=own.options.get(name, {}),
            seed=own.seed,
            device=torch.device("cpu"),
            trained=own.models.trained,
        )
        return Made(both.model, both.temperature, time.perf_counter() - begin)

    def _guarded(self, name: str) -> Made:
        made: dict[str, Made] = {}
        for candidate in CANDIDATES:
            with suppress(FedserError):  # a method that cannot be run here is none to choose
                made[candidate] = self.made(candidate)
        begin = time.perf_counter()
        x, raw, temperature = self.view.x, self.view.raw, self.contest.models.temperature
        apart = distance(self.contest.source.statistics.transform(raw, [None] * len(raw)))
        candidates = [guard.candidate(n, m.model, x, temperature=temperature) for n, m in made.items()]
        settings = guard_settings(self.contest.options.get(name, {}))
        choice = guard.choose(candidates, x, temperature=temperature, distance=apart, settings=settings)
        spent = sum(each.seconds for each in made.values()) + time.perf_counter() - begin
        return Made(made[choice.name].model, made[choice.name].temperature, spent, choice.name)


def guard_settings(options: Mapping[str, Any]) -> GuardSettings:
    """The guard's settings.

    Raises:
        ConfigError: an option is unknown to it or out of range.
    """
    return validate(GuardSettings, dict(options), "the options of the guard")
