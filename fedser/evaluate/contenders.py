"""The contenders of a simulation, for one seed: the same method, schedule and learning rate for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from fedser.adapt import Method, Schedule, adapt, make, probabilities
from fedser.adapt.method import Gradient
from fedser.bundle.keys import SigningKey
from fedser.compute import generator
from fedser.errors import ConfigError
from fedser.evaluate import metrics
from fedser.evaluate.world import (
    SimulationSettings,
    SiteWorld,
    SourceModel,
    World,
    build_sites,
    labels_of,
    local_steps,
    source_model,
)
from fedser.federation.layout import layout_of, pack, unpack
from fedser.federation.local import settle
from fedser.federation.provider import Plan, Provider, Refused
from fedser.federation.site import Site
from fedser.federation.stages import apply_update, average


@dataclass
class SeedResult:
    """What one seed brought.

    Attributes:
        probabilities: [N, C] for all target utterances, by contender.
        curves: (round, UAR, worst site's UAR), by contender.
        refusals: (contender, round, site, code).
        sites: normalisation rule, κ and reason of each site.
    """

    seed: int
    probabilities: dict[str, Tensor] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, float, float]]] = field(default_factory=dict)
    refusals: list[tuple[str, int, str, str]] = field(default_factory=list)
    sites: list[tuple[str, float, str]] = field(default_factory=list)


class InProcess:
    """The transport of a simulation: it calls the site."""

    def __init__(self, sites: dict[str, Site]) -> None:
        self._sites = sites

    def deliver(self, site: str, order: bytes) -> bytes:
        """The site's reply to an order."""
        return self._sites[site].answer(order)


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

    def run(self) -> SeedResult:
        """Compute all contenders that the settings name."""
        for name in self.settings.contenders:
            self.result.probabilities[name] = getattr(self, f"_{name}")()
        return self.result

    def _source(self) -> Tensor:
        return self._join([self.source.model for _ in self.sites])

    def _bn(self) -> Tensor:
        """The source with its running statistics recomputed at each site: what settling alone brings."""
        models = []
        for site in self.sites:
            model = copy.deepcopy(self.source.model)
            settle(model, site.data.x)
            models.append(model)
        return self._join(models)

    def _alone(self) -> Tensor:
        return self._join([self._adapted(site.data.x, self.steps, site.name) for site in self.sites])

    def _pooled(self) -> Tensor:
        """All target data in one place, each site's normalised by its own statistics, K × sites steps."""
        model = self._adapted(torch.cat([site.data.x for site in self.sites]), self.steps * len(self.sites), "pooled")
        return self._join([model for _ in self.sites])

    def _federated(self) -> Tensor:
        return self._join(self._federation("federated", self.sites, self.settings.federation.rounds, 0)[0])

    def _personal(self) -> Tensor:
        own = self.settings.federation
        last = round(own.personal * self.steps)
        return self._join(self._federation("personal", self.sites, own.personal_rounds or own.rounds, last)[0])

    def _newcomer(self) -> Tensor:
        """Each site in turn stays out; the others' model meets it with settled statistics and no training."""
        models: list[nn.Module] = []
        for newcomer in self.sites:
            others = [site for site in self.sites if site is not newcomer]
            if not others:
                models.append(self.source.model)
                continue
            tensors = self._federation("newcomer", others, self.settings.federation.rounds, 0)[1]
            model = copy.deepcopy(self.source.model)
            model.load_state_dict({**model.state_dict(), **tensors})
            settle(model, newcomer.data.x)
            models.append(model)
        return self._join(models)

    def _adapted(self, x: Tensor, steps: int, name: str) -> nn.Module:
        schedule = self.schedule.model_copy(update={"steps": steps})
        local = self.sites[0].data
        return adapt(
            self.source.model,
            x,
            self.method,
            schedule,
            seed=site_seed(self.seed, name),
            linear=self.source.linear,
            class_mask=local.class_mask,
        ).model

    def _federation(
        self, contender: str, members: Sequence[SiteWorld], rounds: int, personal_steps: int
    ) -> tuple[list[nn.Module], dict[str, Tensor]]:
        """Run a federation; returns each member's model and the last joint tensors by name."""
        policy, own, model = self.settings.policy, self.settings.federation, self.source.model
        allowed = policy.may_leave(model.adaptable(), model.first_layer())
        trained = self.method.trainable(model) if isinstance(self.method, Gradient) else ()
        layout = layout_of(model, allowed & set(trained))
        if not layout or self.steps - personal_steps < 1:
            raise ConfigError(
                "Nothing would travel: the method, the policy or the steps leave nothing to join.",
                "Choose a method that trains, policy.leave=all_but_first, and federation.personal below 1.",
            )
        provider_key = SigningKey(Ed25519PrivateKey.generate())
        keys = {site.name: SigningKey(Ed25519PrivateKey.generate()) for site in members}
        sites = {
            site.name: Site(site.name, contender, site.data, policy, keys[site.name], provider_key.public_hex)
            for site in members
        }
        plan = Plan(
            study=contender,
            sites={name: key.public_hex for name, key in keys.items()},
            method=self.method.name,
            options=self.method.settings.model_dump(mode="json", exclude_none=True),
            layout=layout,
            schedule=self.schedule.model_copy(update={"steps": self.steps}),
            rounds=min(rounds, self.steps - personal_steps),
            personal_steps=personal_steps,
            seed=self.seed,
        )
        stages = (average(weighting=own.weighting), apply_update(own.momentum, own.rate))
        provider = Provider(plan, provider_key, InProcess(sites), stages, site_seed)
        watch = self._watch(contender, members, sites, layout) if contender in ("federated", "personal") else None
        start = pack(dict(model.named_parameters()), layout)
        if watch is not None:
            watch(0, start)
        last = provider.run(start, watch)
        self._note(contender, provider.refusals)
        tensors = unpack(last, layout)
        models = [site.personal() or self.source.model for site in sites.values()]
        return list(models), tensors

    def _watch(
        self,
        contender: str,
        members: Sequence[SiteWorld],
        sites: dict[str, Site],
        layout: tuple[tuple[str, tuple[int, ...]], ...],
    ) -> Callable[[int, Tensor], None]:
        """Score the joint model after each round; labels serve the curve alone."""

        def watch(number: int, tensors: Tensor) -> None:
            models = [sites[site.name].model(unpack(tensors, layout)) for site in members]
            total, worst = scores(self.world, self._join(list(models)))
            self.result.curves.setdefault(contender, []).append((number, total, worst))

        return watch

    def _note(self, contender: str, refusals: Sequence[Refused]) -> None:
        self.result.refusals += [(contender, refused.round, refused.site, refused.code) for refused in refusals]

    def _join(self, models: Sequence[nn.Module]) -> Tensor:
        """Probabilities [N, C] of all target utterances, each site's from its own model."""
        joined = torch.zeros(len(self.world.target), len(self.world.classes))
        for site, model in zip(self.sites, models, strict=True):
            p = probabilities(model, site.data.x, self.source.temperature, site.data.class_mask)
            joined[list(site.index)] = p.cpu()
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


def site_seed(seed: int, name: str) -> int:
    """The seed of one site: the same alone and in a federation, another one for each site."""
    return generator("site", seed, name).initial_seed()


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
