"""A malicious server: orders with crafted layers, and how many of a site's inputs come back in its update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedser.adapt import Schedule
from fedser.attacks.findings import Finding, Role
from fedser.attacks.settings import AttackSettings
from fedser.attacks.sites import STUDY, Attacked, Defence, Keys, Seen, order_of
from fedser.attacks.study import Source
from fedser.attacks.traps import Moments, Trap, few_units, layer_inputs, recovered, whole_layer, without_dropout
from fedser.compute import generator
from fedser.federation.layout import Layout, layout_of, pack, unpack
from fedser.federation.local import assemble
from fedser.federation.plan import Plan
from fedser.federation.schema import Code
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData

FEW = 2  # units that the default policy takes for chance


def bare(source: Source) -> Source:
    """What the malicious provider publishes: the same weights, and no dropout."""
    return replace(source, model=without_dropout(source.model))


@dataclass(frozen=True)
class Server:
    """The attacker, and what he attacks.

    Attributes:
        settings: of the run.
        source: the published model; the attacker published it without dropout.
        defence: of the site.
        keys: of the run.
        victim: the attacked site's data.
        others: further members, where the provider sees sums alone.
        known: features [M, D] of speech that the attacker has.
    """

    settings: AttackSettings
    source: Source
    defence: Defence
    keys: Keys
    victim: LocalData
    others: Sequence[LocalData]
    known: Tensor

    def run(self) -> list[Finding]:
        """The first layer, a whole deeper layer, and a few units of it in several rounds."""
        own, size, model, seed = self.settings.imprint, len(self.victim.x), self.source.model, self.settings.seed
        first = [whole_layer(model, 0, size, self._moments(0), seed)]
        deep = [whole_layer(model, 1, size, self._moments(1), seed)]
        few = [few_units(model, 1, size, self._moments(1), seed + number, FEW) for number in range(own.rounds)]
        return [
            self._finding("first layer, all units", first, own.steps),
            self._finding("second layer, all units", deep, own.steps),
            self._finding(f"second layer, {FEW} units, {own.rounds} round{'s' * (own.rounds > 1)}", few, own.steps),
        ]

    def _moments(self, layer: int) -> Moments:
        return Moments.of(layer_inputs(self.source.model, layer, self.known))

    def _finding(self, name: str, traps: Sequence[Trap], steps: int) -> Finding:
        own, bars = self.settings.imprint, self.settings.bars
        layer = traps[0].layer
        truth = self._truth(traps[0]) if layer else self.victim.x
        candidates, refused = self._ask(traps, steps)
        chance = recovered(layer_inputs(self.source.model, layer, self.known), truth, own.cosine)
        role: Role = "figure"
        limit: float | None = None
        if self.defence.name == "none" and len(traps[0].units) > FEW:
            role, limit = "control", bars.control_imprint * len(truth)
        elif self.defence.name == "private":
            role, limit = "bar", float(bars.imprint)
        value = recovered(candidates, truth, own.cosine)
        where = name + (f"; refused: {refused[0].name}" if refused else "")
        measure = f"{'inputs' if layer == 0 else 'inputs of the layer'} recovered, cosine ≥ {own.cosine:g}"
        return Finding(
            "imprint", self.defence.name, where, measure, value, chance=chance, n=len(truth), role=role, limit=limit
        )

    def _truth(self, trap: Trap) -> Tensor:
        """The true inputs of the layer, under the weights that came."""
        crafted = trap.craft(dict(self.source.model.named_parameters()))
        model = assemble(self.victim, crafted)
        settle(model, self.victim.x)
        return layer_inputs(model, trap.layer, self.victim.x)

    def _ask(self, traps: Sequence[Trap], steps: int) -> tuple[Tensor, list[Code]]:
        """One order a trap; what its answers give away [V, D], and the refusals."""
        crowd = [self.victim, *self.others[: self.defence.cohort - 1]]
        sites = [self.defence.open(f"victim-{number}", data) for number, data in enumerate(crowd)]
        found, refused = [torch.zeros(0, traps[0].directions.shape[1])], list[Code]()
        for number, trap in enumerate(traps, 1):
            layout = self._layout(trap)
            flat = pack(trap.craft(dict(self.source.model.named_parameters())), layout)
            seen = [self._send(site, place, number, flat, layout, steps) for place, site in enumerate(sites)]
            if isinstance(seen[0], Code):
                refused.append(seen[0])
                continue
            total = torch.stack([one.flat for one in seen if isinstance(one, Seen)]).sum(dim=0)
            found.append(trap.read(unpack(total, layout), self._moments(trap.layer)))
        return torch.cat(found), refused

    def _layout(self, trap: Trap) -> Layout:
        """The trapped layer and what comes behind it; the first layer only where it is the trap."""
        model = self.source.model
        first = () if trap.layer == 0 else model.first_layer()
        return layout_of(model, set(model.adaptable()) - set(first))

    def _send(self, site: Attacked, place: int, number: int, flat: Tensor, layout: Layout, steps: int) -> Seen | Code:
        order = order_of(self._plan(layout, steps), self.keys, 1, f"victim-{place}", flat)
        return site.answer(replace(order, round=number), flat)

    def _plan(self, layout: Layout, steps: int) -> Plan:
        """As few disturbances as the policy allows: whole batches, no noise, no momentum, no decay."""
        policy, study = self.defence.policy, self.settings.study
        batch = min(max(len(self.victim.x), policy.batch_min), policy.batch_max)
        work = min(max(steps, policy.steps_min), policy.steps_max)
        schedule = Schedule(
            steps=work,
            batch_size=batch,
            learning_rate=min(0.1, policy.learning_rate_max),
            momentum=0.0,
            weight_decay=0.0,
            decay=0.0,
            input_noise=0.0,
        )
        seed = generator("attack", "imprint", self.settings.seed).initial_seed()
        return Plan(STUDY, {}, study.method, study.options, layout, schedule, rounds=1, seed=seed)
