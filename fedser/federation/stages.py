"""One round as stages, the same in simulation and over a network.

site step   = (tensors, order, local data, site state) → (update, site state)
server step = (tensors, updates, server state) → (tensors, server state)

A round is a list of stages on either side; masking or noise is one more stage in the list, not another path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from fedser.federation.aggregate import FixedPointMean, Rule, Weighting, weight_of
from fedser.federation.layout import Layout
from fedser.federation.schema import Order, Scalars, Update
from fedser.models import EmotionClassifier, LinearClassifier
from fedser.privacy.validity import Statistics


@dataclass(frozen=True)
class LocalData:
    """What a site has and never sends.

    Attributes:
        model: the classifier as the signed bundle holds it.
        x: normalised features [N, \\*shape].
        speakers: how many speakers the utterances come from; 1 where unknown.
        class_mask: bool [C], true for the classes that can occur; None means all.
        linear: the bundle's logistic regression, for methods that start from it.
        units: of a privacy unit inside the site, which one each utterance belongs to, N names; None for an utterance
            that takes no part in private training, and altogether where there is no such unit.
        statistics: whose statistics normalised ``x``: the whole ``site``'s, each privacy ``unit``'s own (pulled to the
            published ones), or the ``published`` ones.
    """

    model: EmotionClassifier
    x: Tensor
    speakers: int = 1
    class_mask: Tensor | None = None
    linear: LinearClassifier | None = None
    units: tuple[str | None, ...] | None = None
    statistics: Statistics = "site"


@dataclass(frozen=True)
class SiteState:
    """What a site carries from order to order.

    Attributes:
        study: the federation that it takes part in.
        round, attempt: of the last order it answered; (0, 0) before the first.
        rounds: orders answered in this study.
        order_digest: of that order, and ``reply`` the bytes that went out: a repeat gets the same bytes.
        own: tensors that stay here: normalisation buffers, and layers that do not travel.
        before: what ``own`` was before that round: another attempt at the round starts from it.
        personal: the site's own final model, all its tensors; empty before the last order.
        teacher: the site's own network, all its tensors, where another one travels and learns from it.
    """

    study: str
    round: int = 0
    attempt: int = 0
    rounds: int = 0
    order_digest: str = ""
    reply: bytes = b""
    own: Mapping[str, Tensor] = field(default_factory=dict)
    before: Mapping[str, Tensor] = field(default_factory=dict)
    personal: Mapping[str, Tensor] = field(default_factory=dict)
    teacher: Mapping[str, Tensor] = field(default_factory=dict)


def beginning(order: Order, state: SiteState) -> SiteState:
    """The state that an order starts from: another attempt at a round starts where the first one did."""
    if order.round == state.round:
        return replace(state, own=state.before)
    return replace(state, before=state.own)


@dataclass(frozen=True)
class SiteWork:
    """What the site's stages hand on to each other.

    Attributes:
        tensors: what came with the order, flat float32 [P].
        keep: names of parameters that training must leave alone.
        update: the change so far, flat float32 [P]; empty before a stage made one.
        scalars: the figures that may go with it.
    """

    order: Order
    tensors: Tensor
    data: LocalData
    state: SiteState
    keep: frozenset[str] = frozenset()
    update: Tensor = field(default_factory=lambda: torch.zeros(0))
    scalars: Scalars | None = None


@dataclass(frozen=True)
class Received:
    """One site's validated update."""

    site: str
    update: Update
    flat: Tensor


@dataclass(frozen=True)
class ServerState:
    """What the provider carries from round to round.

    Attributes:
        velocity: the server's momentum (Adam's first moment), flat float32 [P]; None before the first round.
        second: Adam's second moment, flat float32 [P]; None without Adam.
    """

    velocity: Tensor | None = None
    second: Tensor | None = None


@dataclass(frozen=True)
class ServerWork:
    """What the server's stages hand on: the tensors before the round, the updates, and the joint update.

    ``updates`` can be read once, by the stage that joins them.
    """

    tensors: Tensor
    updates: Iterable[Received]
    state: ServerState
    joint: Tensor


SiteStage = Callable[[SiteWork], SiteWork]
ServerStage = Callable[[ServerWork], ServerWork]


def site_step(stages: Sequence[SiteStage], work: SiteWork) -> SiteWork:
    """Run a site's stages; the result holds the update and the new state."""
    for stage in stages:
        work = stage(work)
    return work


def server_step(
    stages: Sequence[ServerStage], tensors: Tensor, updates: Iterable[Received], state: ServerState
) -> tuple[Tensor, ServerState]:
    """Run the server's stages on validated updates; returns the new flat tensor [P] and state."""
    work = ServerWork(tensors, updates, state, torch.zeros_like(tensors))
    for stage in stages:
        work = stage(work)
    return work.tensors, work.state


def average(rule: Callable[[int], Rule] = FixedPointMean, weighting: Weighting = "uniform") -> ServerStage:
    """Make the joint update from the sites' updates by an aggregation rule, made anew for each round.

    Args:
        rule: makes the rule for a model of so many values.
        weighting: of the sites.
    """

    def stage(work: ServerWork) -> ServerWork:
        joined = rule(len(work.tensors))
        for received in work.updates:
            joined.add(received.flat, weight_of(received.update.utterances, weighting), received.site)
            del received  # before the next one is read
        return replace(work, joint=joined.result())

    return stage


def together() -> ServerStage:
    """Make the joint update of the one update there is: the mean that a masked sum gave."""

    def stage(work: ServerWork) -> ServerWork:
        (received,) = work.updates
        return replace(work, joint=received.flat)

    return stage


def apply_update(momentum: float = 0.0, rate: float = 1.0) -> ServerStage:
    """Move the tensors by the joint update: v ← μ·v + Δ, w ← w + η·v.

    Server momentum, Hsu et al. 2019, "Measuring the effects of non-identical data distribution", eq. 2; with
    μ = 0 and η = 1 it is federated averaging.
    """

    def stage(work: ServerWork) -> ServerWork:
        velocity = work.joint
        if momentum and work.state.velocity is not None:
            velocity = momentum * work.state.velocity + work.joint
        return replace(work, tensors=work.tensors + rate * velocity, state=ServerState(velocity))

    return stage


def plainly(layout: Layout, name: str, step: ServerStage) -> ServerStage:
    """A server's step that moves one tensor of the layout by the joint update itself, whatever it does to others."""
    sizes = [prod(shape) for _, shape in layout]
    names = [other for other, _ in layout]
    if name not in names:
        return step
    begin = sum(sizes[: names.index(name)])
    part = slice(begin, begin + sizes[names.index(name)])

    def stage(work: ServerWork) -> ServerWork:
        after = step(work)
        tensors = after.tensors.clone()
        tensors[part] = work.tensors[part] + work.joint[part]
        return replace(after, tensors=tensors)

    return stage
