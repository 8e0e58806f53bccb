"""What an order has to pass before a site computes for it: its address, terms, tensors, and what these single out.

All of it follows the site's own policy and the signed bundle; nothing here keeps a state.
"""

from __future__ import annotations

import math
import time
from functools import cached_property

import torch
from torch import Tensor

from fedser.adapt import Method
from fedser.errors import FedserError
from fedser.federation import firing
from fedser.federation.layout import PEER, elements, network, unpack
from fedser.federation.local import assemble, method_of
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Order
from fedser.federation.secure_schema import KeysOrder
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData, SiteState, beginning

NORM_FLOOR = 0.1  # layers that start at zero (biases) may move as far as if their values were 0.1


class Admission:
    """The checks of one site.

    Args:
        site: the site's name; orders for others are refused.
        policy: the site's.
        data: for the signed bundle's weights, and for what only the data can tell.

    Attributes:
        signed: the bundle's tensors that an order may bring, by name.
        network: the names of those that are the network's own parameters.
    """

    def __init__(self, site: str, policy: Policy, data: LocalData) -> None:
        self._site = site
        self._policy = policy
        self._data = data
        self.signed = {name: p.detach().cpu() for name, p in data.model.named_parameters()}
        self.network = frozenset(self.signed)
        if data.linear is not None and policy.shares_peer:
            self.signed[PEER] = data.linear.weight.detach().cpu()

    def addressed(self, order: Order | KeysOrder, state: SiteState, now: float) -> Code | None:
        """Check that an order, or the beginning of a masked sum, is new, for this site and study, and in its hours."""
        if order.expires < now:
            return Code.EXPIRED
        if order.site != self._site:
            return Code.OTHER_SITE
        if order.study != state.study:
            return Code.OTHER_STUDY
        if (order.round, order.attempt) <= (state.round, state.attempt):
            return Code.STALE
        return None if self._policy.at_work(time.localtime(now).tm_hour) else Code.HOURS

    def terms(self, order: Order, state: SiteState) -> Code | None:
        """Check how much an order asks for, and how often; by the policy."""
        return self._work(order) or (Code.ROUNDS_SPENT if state.rounds >= self._policy.rounds else None)

    def _work(self, order: Order) -> Code | None:
        work, policy, student = order.work, self._policy, order.student
        least = policy.steps_min if order.phase == "train" else 0
        allowed = (
            least <= (work if student is None else student).steps <= policy.steps_max
            and work.steps <= policy.steps_max
            and (student is None or student.total <= policy.total_max)
            and (student is None or student.learning_rate <= policy.learning_rate_max)
            and 1 <= work.total <= policy.total_max
            and policy.batch_min <= work.batch_size <= policy.batch_max
            and 0 < work.learning_rate <= policy.learning_rate_max
            and order.encoding in policy.encodings
            and (order.peer is None or policy.peer_steps_min <= order.peer.steps)
        )
        return None if allowed else Code.WORK

    def method(self, order: Order) -> Method | None:
        """The method that an order asks for; None where the policy, or this version, does not run it."""
        if self._policy.methods is not None and order.method not in self._policy.methods:
            return None
        try:
            made = method_of(order)
        except FedserError:
            return None
        return made if self._policy.allows(order.method, made.settings) else None

    def tensors(self, order: Order, flat: Tensor) -> Code | None:
        """Check which tensors an order brings and asks for, and how far they lie from the signed ones."""
        return self._layout(order) or self._weights(order, flat)

    def _layout(self, order: Order) -> Code | None:
        if order.phase == "train" and elements(order.layout) > (self._policy.values_max or math.inf):
            return Code.LAYOUT
        for name, shape in order.layout:
            if name not in self.signed or tuple(self.signed[name].shape) != shape:
                return Code.LAYOUT
        names = {name for name, _ in order.layout}
        if (order.peer is not None) != (PEER in names):
            return Code.LAYOUT
        first = self._data.model.first_layer()
        allowed = self._policy.may_leave(self.network, first) | (self.signed.keys() - self.network)
        if order.phase == "finish":  # its answer holds no tensor, but no order may set a first layer that stays
            allowed |= self.signed.keys() - set(first)
        return None if names <= allowed else Code.LAYOUT

    def _weights(self, order: Order, flat: Tensor) -> Code | None:
        if not bool(torch.isfinite(flat).all()):
            return Code.NOT_FINITE
        for name, tensor in unpack(flat, order.layout).items():
            signed = self.signed[name].double()
            floor = NORM_FLOOR * math.sqrt(signed.numel())
            if float((tensor.double() - signed).norm()) > self._policy.radius * max(float(signed.norm()), floor):
                return Code.RADIUS
        return None

    def of_data(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        """Check what only the data can tell: whether there is enough, and whether the weights single some out."""
        return self._enough_data() or self._traps(order, flat, state)

    def _enough_data(self) -> Code | None:
        policy, data = self._policy, self._data
        enough = len(data.x) >= policy.utterances_min and data.speakers >= policy.speakers_min
        return None if enough else Code.TOO_LITTLE_DATA

    def _traps(self, order: Order, flat: Tensor, state: SiteState) -> Code | None:
        policy, x = self._policy, self._data.x
        if len(x) < firing.FEWEST or not network(unpack(flat, order.layout)):
            return None  # a network that stays here carries nothing out
        model = assemble(self._data, beginning(order, state).own, network(unpack(flat, order.layout)))
        settle(model, x)
        found = firing.layers(model, x, policy.trap_few)
        bad = firing.suspicious(found, self._signed_firing, len(x), policy.trap_alone, policy.trap_pairs)
        return Code.TRAP if bad else None

    @cached_property
    def _signed_firing(self) -> tuple[firing.Layer, ...]:
        model = assemble(self._data)
        settle(model, self._data.x)
        return firing.layers(model, self._data.x, self._policy.trap_few)
