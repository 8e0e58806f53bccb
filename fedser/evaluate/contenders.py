"""The contenders of a simulation, for one seed: the same method, schedule and learning rate for all of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedser.adapt import Method, Schedule, adapt, conclude, make, probabilities
from fedser.adapt.method import Gradient
from fedser.errors import ConfigError
from fedser.evaluate import metrics
from fedser.evaluate.federate import federate
from fedser.evaluate.simulation_settings import SimulationSettings
from fedser.evaluate.source import SourceModel
from fedser.evaluate.world import (
    SiteWorld,
    World,
    build_sites,
    labels_of,
    local_steps,
    source_model,
)
from fedser.federation.layout import PEER, network
from fedser.federation.peer import Pupil, Together, study
from fedser.federation.plan import site_seed
from fedser.federation.settle import settle
from fedser.federation.student import learn
from fedser.models import EmotionClassifier

DRAWN = ("source", "personal")  # before and after, in the report
CURVES = ("federated", "personal")


@dataclass
class SeedResult:
    """What one seed brought.

    Attributes:
        probabilities: [N, C] for all target utterances, by contender.
        curves: (round, UAR, worst site's UAR), by contender.
        refusals: (contender, round, site, code).
        sites: normalisation rule, κ and reason of each site.
        embedded: bottleneck outputs [N, d], of the first seed and the contenders that are drawn.
    """

    seed: int
    probabilities: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    refusals: list[tuple[str, int, str, str]] = field(default_factory=list)
    sites: list[tuple[str, float, str]] = field(default_factory=list)
    embedded: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Seed:
    """One seed's run: the world, its source model and sites, and the common schedule."""

    settings: SimulationSettings
    world: World
    source: SourceModel
    sites: tuple[SiteWorld, ...]
    method: Method
    schedule: Schedule
    steps: int
    seed: int
    result: SeedResult
    made: dict[str, list[nn.Module]] = field(default_factory=dict)

    def run(self) -> SeedResult:
        """Compute all contenders that the settings name."""
        for name in self.settings.contenders:
            models = self.made[name] = getattr(self, f"_{name}")()
            self.result.probabilities[name] = self._join(models)
            if name in DRAWN and self.seed == self.settings.seeds[0]:
                self.result.embedded[name] = self._embed(models)
        return self.result

    def _source(self) -> list[nn.Module]:
        return [self.source.model for _ in self.sites]

    def _bn(self) -> list[nn.Module]:
        """The source with its running statistics recomputed at each site: what settling alone brings."""
        models: list[nn.Module] = []
        for site in self.sites:
            model = copy.deepcopy(self.source.model)
            settle(model, site.data.x)
            models.append(model)
        return models

    def _alone(self) -> list[nn.Module]:
        return [self._adapted(site.data.x, self.steps, site.name) for site in self.sites]

    def _pooled(self) -> list[nn.Module]:
        """All target data in one place, each site's normalised by its own statistics, K × sites steps."""
        model = self._adapted(torch.cat([site.data.x for site in self.sites]), self.steps * len(self.sites), "pooled")
        return [model for _ in self.sites]

    def _federated(self) -> list[nn.Module]:
        return self._federation("federated", self.sites, self.settings.federation.rounds, 0)[0]

    def _personal(self) -> list[nn.Module]:
        own = self.settings.federation
        last = round(own.personal * own.student.shared(self.steps))
        rounds = own.personal_rounds or own.rounds
        if "federated" in self.made and not last and rounds == own.rounds:  # no step is kept for the end: the same run
            self.result.curves["personal"] = self.result.curves["federated"]
            return self.made["federated"]
        return self._federation("personal", self.sites, rounds, last)[0]

    def _newcomer(self) -> list[nn.Module]:
        """Each site in turn stays out; what the others made meets it with settled statistics and no training."""
        models: list[nn.Module] = []
        for newcomer in self.sites:
            others = [site for site in self.sites if site is not newcomer]
            if not others:
                models.append(self.source.model)
                continue
            tensors = self._federation("newcomer", others, self.settings.federation.rounds, 0)[1]
            model = copy.deepcopy(self.source.model)
            model.load_state_dict({**model.state_dict(), **network(tensors)})
            settle(model, newcomer.data.x)
            linear = self.source.linear
            if linear is not None and PEER in tensors:
                models.append(Together(model, linear, tensors[PEER]))
            else:
                models.append(model)
        return models

    def _adapted(self, x: Tensor, steps: int, name: str) -> nn.Module:
        """One adaptation without exchange, with a peer or a student of its own where the sites share one."""
        if self.settings.federation.student.steps:
            return self._taught(x, steps, name)
        schedule, seed = self.schedule.model_copy(update={"steps": steps}), site_seed(self.seed, name)
        mask, linear = self.sites[0].data.class_mask, self.source.linear
        own = self.settings.federation
        work = own.peer.work()
        if work is None or linear is None:
            return adapt(self.source.model, x, self.method, schedule, seed=seed, linear=linear, class_mask=mask).model
        pupil, rounds = Pupil(copy.deepcopy(self.source.model), linear.weight), min(own.rounds, steps)
        for number in range(rounds):
            start, end = steps * number // rounds, steps * (number + 1) // rounds
            settle(pupil.model, x)
            pupil = study(
                pupil,
                x,
                self.method,
                schedule,
                work,
                linear,
                seed=seed,
                start=start,
                total=steps,
                steps=end - start,
                class_mask=mask,
            )
        return conclude(pupil.model, self.source.model, x, self.method, seed=seed, linear=linear, class_mask=mask)

    def _taught(self, x: Tensor, steps: int, name: str) -> nn.Module:
        """What a federation of one site makes: its own network, then a student of it."""
        own, seed = self.settings.federation.student, site_seed(self.seed, name)
        mask, linear = self.sites[0].data.class_mask, self.source.linear
        schedule = self.schedule.model_copy(update={"steps": steps})
        teacher = adapt(
            self.source.model, x, self.method, schedule, seed=seed, linear=linear, class_mask=mask, whole=False
        ).model
        student = copy.deepcopy(self.source.model)
        settle(student, x)
        total = own.steps * steps // self.steps
        work = own.model_copy(update={"steps": total}).work(0, total)
        travelling = self.settings.policy.may_leave(student.adaptable(), student.first_layer())
        kept = frozenset(student.adaptable()) - travelling
        learn(student, teacher, x, work, self.method, seed=seed, class_mask=mask, frozen=kept)  # type: ignore[arg-type]
        return student

    def _federation(
        self, contender: str, members: Sequence[SiteWorld], rounds: int, personal_steps: int
    ) -> tuple[list[nn.Module], dict[str, Tensor]]:
        """Run a federation; returns each member's model and the last joint tensors by name."""
        watch = None
        if contender in CURVES:

            def watch(number: int, models: list[nn.Module]) -> None:
                """Score the joint model after each round; labels serve the curve alone."""
                total, worst = scores(self.world, self._join(models))
                self.result.curves.setdefault(contender, []).append((number, total, worst))

        joined = federate(
            members,
            self.source.model,
            self.method,
            self.schedule.model_copy(update={"steps": self.steps}),
            self.settings.federation,
            self.settings.policy,
            study=contender,
            rounds=rounds,
            personal_steps=personal_steps,
            seed=self.seed,
            watch=watch,
        )
        self.result.refusals += [(contender, r.round, r.site, r.code) for r in joined.refusals]
        return joined.models, joined.tensors

    def _join(self, models: Sequence[nn.Module]) -> Tensor:
        """Probabilities [N, C] of all target utterances, each site's from its own model."""
        joined = torch.zeros(len(self.world.target), len(self.world.classes))
        for site, model in zip(self.sites, models, strict=True):
            p = probabilities(model, site.data.x, self.source.temperature, site.data.class_mask)
            joined[list(site.index)] = p.cpu()
        return joined

    @torch.no_grad()
    def _embed(self, models: Sequence[nn.Module]) -> Tensor:
        """Bottleneck outputs [N, d] of all target utterances; an empty tensor for models that have none."""
        parts = [
            (site.index, model.embed(site.data.x).cpu())
            for site, model in zip(self.sites, models, strict=True)
            if isinstance(model, EmotionClassifier)
        ]
        if len(parts) < len(self.sites):
            return torch.zeros(0)
        joined = torch.zeros(len(self.world.target), parts[0][1].shape[1])
        for index, embedded in parts:
            joined[list(index)] = embedded
        return joined


def check(settings: SimulationSettings) -> None:
    """Look at the method before any work.

    Raises:
        UsageError: there is no such method.
        ConfigError: its options do not fit, or it trains nothing although contenders are to be joined.
    """
    method = make(settings.method.name, settings.method.options)
    joining = {"federated", "personal", "newcomer"} & set(settings.contenders)
    if joining and not isinstance(method, Gradient):
        raise ConfigError(
            f"The method {method.name} trains nothing that could travel.",
            f"Choose a method with gradient steps, or leave out {', '.join(sorted(joining))}.",
        )


def run_seed(settings: SimulationSettings, world: World, seed: int, device: torch.device) -> SeedResult:
    """Train or read the source, build the sites and run all contenders.

    Raises:
        FedserError: the data or settings do not fit; QuorumError where no site took part.
    """
    source = source_model(settings, world, seed, device)
    sites = build_sites(settings, world, source)
    method = make(settings.method.name, settings.method.options)
    schedule = settings.schedule or (method.schedule if isinstance(method, Gradient) else Schedule())
    result = SeedResult(seed, sites=[(s.normaliser.rule, s.normaliser.kappa, s.normaliser.reason) for s in sites])
    steps = local_steps(schedule, sites)
    return Seed(settings, world, source, sites, method, schedule, steps, seed, result).run()


def scores(world: World, probabilities: Tensor) -> tuple[float, float]:
    """UAR over all sites' utterances, and the UAR of the worst site."""
    labels, answers = labels_of(world), probabilities.argmax(dim=1)
    scored = labels >= 0
    each = []
    for site in world.sites:
        own = [row for row in site.index if scored[row]]
        if own:
            each.append(metrics.uar(labels[own], answers[own]))
    return metrics.uar(labels[scored], answers[scored]), min(each, default=float("nan"))
