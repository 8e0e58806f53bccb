"""The federation that is attacked: its plan, the joint model of each round, and what a crowd of sites answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedser.adapt import Schedule, make
from fedser.attacks.people import People, Rows
from fedser.attacks.settings import AttackSettings
from fedser.attacks.sites import STUDY, Bare, Defence, Keys, order_of, replies, sums
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.bundle import Bundle
from fedser.federation.data import local_data
from fedser.federation.layout import PEER, Layout, pack, unpack
from fedser.federation.plan import Joining, Plan, beginning_of, plan_of
from fedser.federation.schema import Order
from fedser.federation.stages import LocalData
from fedser.models import EmotionClassifier, LinearClassifier
from fedser.privacy.settings import Unit

_LAST_NORM = "bottleneck.1."


class Heard(NamedTuple):
    """What the provider holds of all sites after a round.

    Attributes:
        round: its number.
        flats: updates, or sums with other sites' [n, P].
        figures: count, loss, confidence, diversity [n, 4].
    """

    round: int
    flats: Tensor
    figures: Tensor


@dataclass(frozen=True)
class Source:
    """The published model, which the attacker has as well."""

    model: EmotionClassifier
    linear: LinearClassifier | None
    rule: NormalisationSettings
    published: SiteNormaliser

    @classmethod
    def of(cls, bundle: Bundle) -> Source:
        """From a bundle."""
        return cls(bundle.classifier(), bundle.linear(), bundle.header.normalisation, bundle.normaliser())

    def site(self, people: People, rows: Rows, unit: Unit = "none") -> LocalData:
        """A site with these utterances, normalised as its privacy unit demands."""
        speech = people.speech.subset(rows.tolist())
        return local_data(*(speech, self.model, self.linear, self.rule, None), unit=unit, published=self.published)[0]


@dataclass(frozen=True)
class Attack:
    """One federation under one defence, as the provider runs it.

    Attributes:
        settings: of the run.
        source: the published model.
        defence: of the attacked sites.
        keys: of the run.
        rounds: exchanges.
        bystanders: the other sites, whose updates move the joint model.
        refusals: codes of refusals so far, with their numbers.
    """

    settings: AttackSettings
    source: Source
    defence: Defence
    keys: Keys
    rounds: int
    bystanders: Sequence[LocalData]
    refusals: Counter[str] = field(default_factory=Counter)

    @cached_property
    def plan(self) -> Plan:
        """What the orders ask for: all that the policy lets go."""
        own, policy = self.settings.study, self.defence.policy
        schedule = Schedule(steps=own.steps * self.rounds, batch_size=own.batch_size, learning_rate=own.learning_rate)
        joining = Joining(
            rounds=self.rounds,
            personal_steps=0,
            leave=policy.leave,
            encoding="f32",
            peer=own.peer if policy.shares_peer else type(own.peer)(),
            seed=self.settings.seed,
            network=own.network or not policy.shares_peer,
        )
        method = make(own.method, own.options)
        return plan_of(STUDY, self.source.model, self.source.linear, method, schedule, joining)

    @cached_property
    def joint(self) -> list[Tensor]:
        """The joint tensors [P] that each round begins with: the bystanders' federated average."""
        flat = beginning_of(self.source.model, self.source.linear, self.plan.layout)
        found, crowd = [flat], [Bare(data) for data in self.bystanders]
        for number in range(1, self.rounds):
            sent = self.sent(flat)
            flats, _, _ = replies(crowd, self.orders(number, len(crowd), sent), sent)
            flat = flat + flats.mean(dim=0)
            found.append(flat)
        return found

    def sent(self, joint: Tensor) -> Tensor:
        """What the orders hold instead of the joint tensors [P]: the same, with flatter answers."""
        return flattened(joint, self.plan.layout, self.settings.study.flatten)

    def orders(self, number: int, count: int, flat: Tensor) -> Iterator[Order]:
        """The orders of a round for so many sites."""
        for site in range(count):
            yield order_of(self.plan, self.keys, number, f"site-{site}", flat)

    def listen(self, crowd: Sequence[LocalData], groups: Sequence[int], rng: np.random.Generator) -> Iterator[Heard]:
        """Run all rounds with each site of a crowd as one more member of the federation.

        Args:
            crowd: the sites.
            groups: of each; the others in a masked sum come from the same one.
            rng: draws these.
        """
        sites = [self.defence.open(f"site-{number}", data) for number, data in enumerate(crowd)]
        for number, joint in enumerate(self.joint, 1):
            flat = self.sent(joint)
            flats, figures, refused = replies(sites, self.orders(number, len(sites), flat), flat)
            self.refusals.update(code.name for code in refused)
            yield Heard(number, sums(flats, self.defence.cohort, groups, rng), figures)

    def overhear(
        self, clean: Defence, crowd: Sequence[LocalData], groups: Sequence[int], shadow: int, rng: np.random.Generator
    ) -> Iterator[Heard]:
        """As :meth:`listen`; where the policy has noise, the first sites' rows without it stand behind all others.

        Args:
            clean: the same defence without its noise, for the attacker's own sites.
            crowd, groups, rng: see there.
            shadow: how many of the sites are the attacker's, the first ones.
        """
        loud = self.listen(crowd, groups, rng)
        if not self.defence.policy.privacy.on:
            yield from loud
            return
        quiet = replace(self, defence=clean).listen(crowd[:shadow], groups[:shadow], rng)
        for heard, own in zip(loud, quiet, strict=True):
            both = torch.cat([heard.flats, own.flats]), torch.cat([heard.figures, own.figures])
            yield Heard(heard.round, *both)

    def training(self, shadow: int, total: int) -> list[list[int]]:
        """Row numbers of the attacker's own sites in what he overhears: without noise where there is any, then with."""
        rows = [list(range(shadow))]
        return [list(range(total, total + shadow)), *rows] if self.defence.policy.privacy.on else rows


def flattened(joint: Tensor, layout: Layout, share: float) -> Tensor:
    """Tensors [P] whose answers come nearer to equal ones: a part of the last norm's scales, and of the peer.

    An utterance's gradient is its features times what is wrong with its answer. Where answers are sure, a few unsure
    utterances make the update; where all answers are alike, it is a sum of features by label, in which what a site's
    speech has in common adds up. Both changes lie within the default policy's radius.

    Args:
        joint: tensors of the layout [P].
        layout: of them.
        share: that stays of the last norm's gain and bias; its square stays of the peer's weights.
    """
    tensors = dict(unpack(joint, layout))
    for name, tensor in tensors.items():
        if name == PEER or name.startswith(_LAST_NORM):
            tensors[name] = tensor * (share**2 if name == PEER else share)
    return pack(tensors, layout)


class Views:
    """Inner products of what sites sent, for the attacker's classifier; they grow from round to round.

    Each layer that changes by itself (``name``), all layers beside each other (``all``), their mean over the rounds
    (``mean``), and with the count and the figures (``all + figures``).
    """

    def __init__(self, plan: Plan) -> None:
        self._sizes = [int(np.prod(shape)) for _, shape in plan.layout]
        self._names = [name.rpartition(".")[0] for name, _ in plan.layout]
        self._layers = {name: torch.zeros(1, 1) for name in self._names}
        self._figures = torch.zeros(1, 1)
        self._sum = torch.zeros(1, 1)

    def add(self, heard: Heard) -> None:
        """Take in a round."""
        for name, part in zip(self._names, torch.split(heard.flats, self._sizes, dim=1), strict=True):
            self._layers[name] = self._layers[name] + part @ part.T
        told = heard.figures - heard.figures.mean(dim=0)
        told = told / told.std(dim=0).clamp_min(1e-9) * (told.abs().max(dim=0).values > 0)
        self._figures = self._figures + told @ told.T
        self._sum = self._sum + heard.flats

    def now(self) -> Mapping[str, Tensor]:
        """Inner products [n, n] by view, as of the rounds so far."""
        found = {name: inner for name, inner in self._layers.items() if bool(inner.any())}
        found["all"] = torch.stack([_scaled(inner) for inner in self._layers.values()]).sum(dim=0)
        found["mean"] = self._sum @ self._sum.T
        if bool(self._figures.any()):
            found["all + figures"] = found["all"] + _scaled(self._figures)
        return found


def _scaled(inner: Tensor) -> Tensor:
    return inner / inner.diagonal().mean().clamp_min(1e-30)
