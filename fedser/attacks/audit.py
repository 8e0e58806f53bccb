"""The audit by canaries: a lower bound of ε from what really leaves a site, held against the ε that its policy claims.

Unit ``site``: the canary is the whole update, as long as the clip allows, against none. Units inside the site: the
canary is one more speaker (or utterance) of unusual features in the site's data. Both go through the real site, its
private steps, its gate and its noise. The control runs the same policy with its noise switched nearly off, and must be
noticed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedser.adapt import Schedule
from fedser.attacks.findings import Finding
from fedser.attacks.settings import AttackSettings
from fedser.attacks.sites import STUDY, Attacked, Keys, Seen, defended, order_of
from fedser.attacks.study import Source
from fedser.compute import generator
from fedser.errors import PrivacyError
from fedser.federation.layout import layout_of, pack
from fedser.federation.local import adapt_locally
from fedser.federation.plan import Plan
from fedser.federation.policy import Policy
from fedser.federation.schema import Order
from fedser.federation.stages import LocalData, SiteStage, SiteWork
from fedser.privacy.accountant import epsilon_of, noise_of
from fedser.privacy.audit_epsilon import epsilon_lower_bound
from fedser.privacy.validity import Statistics

Floats = npt.NDArray[np.float64]

_BATCH = 50  # releases of one site: ledgers get slower as they grow
_UNITS = 2  # speakers or utterances at a site beside the canary
_LOOKS = 20  # releases without noise, by which the attacker finds out what a canary changes
_EACH = 4  # utterances of a speaker
_UNUSUAL = 1.0  # standard deviations from the mean in every feature: farther out, softmax saturates


@dataclass(frozen=True)
class Canaries:
    """Releases of one policy with and without a canary.

    Attributes:
        settings: of the run.
        policy: audited.
        source: the published model.
        keys: of the run.
    """

    settings: AttackSettings
    policy: Policy
    source: Source
    keys: Keys

    @property
    def claim(self) -> float:
        """The ε that one order costs, by the policy's own accountant."""
        own = self.policy.privacy
        whole = own.unit == "site"
        rate, steps = (1.0, 1) if whole else (own.rate, self.settings.audit.steps)
        return epsilon_of(noise_of(own), rate, steps, own.delta, discrete=whole)

    def scores(self, *, noiseless: bool) -> tuple[Floats, Floats]:
        """Scores of releases with the canary and without [n] each."""
        count = self.settings.audit.canaries
        along = self._direction() if self.policy.privacy.unit == "site" else self._along
        return self._released(True, count, noiseless) @ along, self._released(False, count, noiseless) @ along

    @cached_property
    def _along(self) -> Floats:
        """The direction [P] that the canary adds, without those in which releases without it differ anyway."""
        with_it, without = (self._released(kept, _LOOKS, True) for kept in (True, False))
        middle = without.mean(axis=0)
        _, _, usual = np.linalg.svd(np.vstack([without - middle, middle]), full_matrices=False)
        added: Floats = with_it.mean(axis=0) - middle
        return added - usual[: _LOOKS // 2].T @ (usual[: _LOOKS // 2] @ added)

    def _released(self, kept: bool, count: int, noiseless: bool) -> Floats:
        """What the provider has of so many orders [count, P]."""
        rows: list[Tensor] = []
        while len(rows) < count:
            cohort = self._cohort(kept, noiseless, len(rows))
            for number in range(1, min(_BATCH, count - len(rows)) + 1):
                seen = [site.answer(*self._order(number, place)) for place, site in enumerate(cohort)]
                flats = [one.flat for one in seen if isinstance(one, Seen)]
                if len(flats) < len(cohort):
                    raise PrivacyError(
                        f"The policy under audit refuses the audit's orders: {seen[0]}.",
                        "Leave 'audit' out of the attacks, or choose a method that the policy allows.",
                    )
                rows.append(torch.stack(flats).sum(dim=0))
        released: Floats = torch.stack(rows).double().numpy()
        return released

    def _cohort(self, kept: bool, noiseless: bool, number: int) -> list[Attacked]:
        """The site with or without the canary and, where a release is a sum of shares of the noise, others without.

        Noise that stands in full in each update is audited site by site: the claim holds whoever takes part in a sum.
        """
        policy = self.policy.model_copy(update={"rounds": 1_000_000, "utterances_min": 1, "speakers_min": 1})
        whole = policy.privacy.unit == "site"

        def make(name: str, canary: bool) -> Attacked:
            stage: SiteStage = self._stage(canary) if whole else adapt_locally
            defence = defended("audit", policy, self.keys, stage=stage, counted=False, noiseless=noiseless)
            return defence.open(name, self._data(canary and not whole, number))

        others = policy.privacy.masking.honest - 1 if policy.privacy.form == "central" and not noiseless else 0
        return [make("site-0", kept), *(make(f"site-{place}", False) for place in range(1, others + 1))]

    def _stage(self, canary: bool) -> SiteStage:
        values = torch.from_numpy(self._direction()).float() * self.policy.privacy.clip * float(canary)
        return lambda work: _with(work, values)

    def _direction(self) -> Floats:
        """The canary of a whole update: a unit vector [P]."""
        drawn = torch.randn(len(self._flat), generator=generator("audit", "canary"), dtype=torch.float64)
        direction: Floats = (drawn / drawn.norm()).numpy()
        return direction

    def _data(self, canary: bool, number: int) -> LocalData:
        """Random features of a few units, and the canary's, as far from the mean in all of them."""
        model, own = self.source.model, self.policy.privacy.unit
        draw = generator("audit", "data")
        x = torch.randn(_UNITS * _EACH, *model.shape, generator=draw)
        names = [f"unit-{row // _EACH}" if own == "speaker" else f"unit-{row}" for row in range(len(x))]
        if own == "site":
            return LocalData(model, x[:4])
        if canary:
            each = _EACH if own == "speaker" else 1
            signs = torch.sign(torch.randn(each, *model.shape, generator=generator("audit", "signs")))
            x, names = torch.cat([x, _UNUSUAL * signs]), [*names, *["canary"] * each]
        statistics: Statistics = "unit" if own == "speaker" else "published"
        return LocalData(model, x, len(set(names)), units=tuple(names), statistics=statistics)

    @cached_property
    def _flat(self) -> Tensor:
        return pack(dict(self.source.model.named_parameters()), self._plan.layout)

    @cached_property
    def _plan(self) -> Plan:
        model, study, own = self.source.model, self.settings.study, self.policy.privacy.unit
        allowed = self.policy.may_leave(model.adaptable(), model.first_layer())
        last = [name for name in model.adaptable() if name in allowed and name.startswith("bottleneck.1.")]
        layout = layout_of(model, last if own == "site" and last else allowed)
        batch = max(study.batch_size, self.policy.batch_min)
        steps = study.steps if own == "site" else self.settings.audit.steps
        schedule = Schedule(steps=steps, batch_size=batch, learning_rate=study.learning_rate, input_noise=0.0)
        return Plan(STUDY, {}, study.method, study.options, layout, schedule, rounds=1)

    def _order(self, number: int, place: int) -> tuple[Order, Tensor]:
        order = order_of(self._plan, self.keys, 1, f"site-{place}", self._flat)
        return replace(order, round=number), self._flat


def _with(work: SiteWork, update: Tensor) -> SiteWork:
    return replace(work, update=update)


def run(settings: AttackSettings, name: str, policy: Policy, source: Source, keys: Keys) -> list[Finding]:
    """The audit of one policy, and its control."""
    own, canaries = settings.audit, Canaries(settings, policy, source, keys)
    claim, found = canaries.claim, []
    steps = "" if policy.privacy.unit == "site" else f" of {own.steps} step{'s' * (own.steps > 1)}"
    for setting, noiseless in (("none", True), (name, False)):
        bound = epsilon_lower_bound(*canaries.scores(noiseless=noiseless), policy.privacy.delta, own.confidence)
        found.append(
            Finding(
                attack="audit",
                setting=setting,
                where=f"one order{steps}, unit {policy.privacy.unit}, claim ε = {claim:.3g}"
                + (", noise switched off" if noiseless else ""),
                measure=f"lower bound of ε, {100 * own.confidence:g} %",
                value=bound,
                chance=0.0,
                n=2 * own.canaries,
                role="control" if noiseless else "bar",
                limit=claim,
            )
        )
    return found
