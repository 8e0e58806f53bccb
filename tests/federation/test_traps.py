"""What a hostile provider can order: trap weights and forged orders, each refused by the site with its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedser.federation import wire
from fedser.federation.admission import NORM_FLOOR
from fedser.federation.audit import AuditLog
from fedser.federation.layout import layout_of, pack, raw_bytes, tensor_digest
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Order, Refusal, Update
from fedser.federation.site import Site
from fedser.federation.stages import LocalData
from tests.federation.conftest import ORDER_KEY, Lab, key
from tests.federation.test_firing import trapped, wide

Tensors = dict[str, Tensor]


class World:
    """A site with a wide model, and orders to it."""

    def __init__(self, policy: Policy | None = None, clock: float = 1e9) -> None:
        self.data: LocalData = wide()
        self.log = AuditLog()
        self.computed = 0

        def step(work: Any) -> Any:
            from fedser.federation.local import adapt_locally

            self.computed += 1
            return adapt_locally(work)

        self.site: Site = Lab.site(1, policy, self.data, stages=(step,), audit=self.log, clock=lambda: clock)
        model = self.data.model
        names = set(model.adaptable()) - set(model.first_layer())
        self.plan = replace(Lab.plan({"site-1": self.site}), layout=layout_of(model, names))

    def signed(self) -> Tensors:
        return {name: p.detach().clone() for name, p in self.data.model.named_parameters()}

    def order(self, tensors: Tensors | None = None, flat: Tensor | None = None, **changes: Any) -> tuple[Order, Tensor]:
        layout = changes.pop("layout", self.plan.layout)
        flat = pack(tensors or self.signed(), layout) if flat is None else flat
        order = Lab.provider({}, self.plan).order(1, "site-1", "train", pack(self.signed(), self.plan.layout))
        work = replace(order.work, **changes.pop("work", {}))
        order = replace(
            order, layout=layout, tensor_digest=tensor_digest(flat), work=work, expires=2 * 10**9, **changes
        )
        return order, flat

    def send(self, data: bytes) -> Code | None:
        before, computed = self.site.state, self.computed
        message, flat = wire.decode_reply(self.site.answer(data), key(1).public_hex)
        if isinstance(message, Update):
            return None
        assert isinstance(message, Refusal)
        assert self.site.state is before
        assert self.computed == computed  # nothing was computed on it
        assert len(flat) == 0
        assert self.log.records[-1]["event"] == "refusal"
        assert self.log.records[-1]["code"] == message.code.name
        return message.code

    def ask(self, order: Order, flat: Tensor, signer: int = 99) -> Code | None:
        return self.send(wire.encode(order, flat, key(signer)))


def honest(world: World) -> Code | None:
    return world.ask(*world.order())


def outside_the_radius(world: World) -> Code | None:
    tensors = world.signed()
    tensors["encoder.layers.4.weight"] = -1.1 * tensors["encoder.layers.4.weight"]
    return world.ask(*world.order(tensors))


def a_bias_outside_the_radius(world: World) -> Code | None:
    tensors = world.signed()
    tensors["encoder.layers.5.bias"] = torch.full((64,), 1.1 * NORM_FLOOR)
    return world.ask(*world.order(tensors))


def first_layer(world: World) -> Code | None:
    """Equal rows and a grid of biases where the input itself comes in; the layout has to name it."""
    tensors = world.signed()
    tensors["encoder.layers.0.weight"][:] = 0.1
    tensors["encoder.layers.0.bias"] = torch.linspace(-0.1, 0.1, 64)
    names = set(world.data.model.adaptable())
    return world.ask(*world.order(tensors, layout=layout_of(world.data.model, names)))


def first_layer_to_finish(world: World) -> Code | None:
    tensors = world.signed()
    names = set(world.data.model.adaptable())
    return world.ask(*world.order(tensors, layout=layout_of(world.data.model, names), phase="finish"))


def first_layer_that_the_policy_lets_go(world: World) -> Code | None:
    """Where an owner opens the first layer, the bins in it are still noticed."""
    world = World(Policy(leave="all"))
    names = set(world.data.model.adaptable())
    return world.ask(*world.order(trapped(world.data, 0, "bins"), layout=layout_of(world.data.model, names)))


def bins(layer: int, kind: str) -> Callable[[World], Code | None]:
    return lambda world: world.ask(*world.order(trapped(world.data, layer, kind)))


def first_norm(world: World) -> Code | None:
    """The first layer's weights stay, but its norm travels: biases that let few utterances through."""
    tensors = world.signed()
    tensors["encoder.layers.1.weight"] = torch.full((64,), 0.03)
    tensors["encoder.layers.1.bias"] = torch.full((64,), -0.065)
    return world.ask(*world.order(tensors))


def value(number: float) -> Callable[[World], Code | None]:
    def trap(world: World) -> Code | None:
        flat = pack(world.signed(), world.plan.layout)
        flat[11] = number
        return world.ask(*world.order(flat=flat))

    return trap


def oversized(world: World) -> Code | None:
    """More values than the whole bundle has: refused before the container is read."""
    layout = (("encoder.layers.4.weight", (1000, 1000)),)
    return world.ask(*world.order(flat=torch.zeros(1_000_000), layout=layout))


def another_shape(world: World) -> Code | None:
    layout = (("encoder.layers.4.weight", (32, 128)),)
    return world.ask(*world.order(flat=torch.zeros(4096), layout=layout))


def work(**changes: Any) -> Callable[[World], Code | None]:
    return lambda world: world.ask(*world.order(work=changes))


TRAPS: dict[str, tuple[Callable[[World], Code | None], Code]] = {
    "outside the radius": (outside_the_radius, Code.RADIUS),
    "a bias outside the radius": (a_bias_outside_the_radius, Code.RADIUS),
    "a first layer that reads inputs": (first_layer, Code.LAYOUT),
    "a first layer in the order to finish": (first_layer_to_finish, Code.LAYOUT),
    "a first layer of bins where the policy opens it": (first_layer_that_the_policy_lets_go, Code.TRAP),
    "the first layer's norm": (first_norm, Code.TRAP),
    "a deeper layer of bins": (bins(1, "bins"), Code.TRAP),
    "a deeper layer of rare units": (bins(1, "rare"), Code.TRAP),
    "the deepest layer of bins": (bins(2, "bins"), Code.TRAP),
    "NaN": (value(float("nan")), Code.NOT_FINITE),
    "plus infinity": (value(float("inf")), Code.NOT_FINITE),
    "minus infinity": (value(-float("inf")), Code.NOT_FINITE),
    "oversized": (oversized, Code.MALFORMED),
    "another shape": (another_shape, Code.LAYOUT),
    "below the smallest batch": (work(batch_size=2), Code.WORK),
    "a batch of one": (work(batch_size=1), Code.WORK),
    "below the fewest steps": (work(steps=0), Code.WORK),
    "a huge learning rate": (work(learning_rate=9.0), Code.WORK),
}


@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_is_refused_with_its_code(name: str) -> None:
    trap, code = TRAPS[name]
    world = World()
    assert trap(world) == code
    assert honest(world) is None  # and the site keeps working


def test_fewer_steps_than_the_policy_wants() -> None:
    world = World(Policy(steps_min=5))
    assert world.ask(*world.order(work={"steps": 4})) == Code.WORK


# Orders that are not for this site, or not now.


def resigned(world: World) -> Code | None:
    return world.ask(*world.order(), signer=7)


def unsigned(world: World) -> Code | None:
    order, flat = world.order()
    entry = wire._canonical({"body": wire._plain("order", order), "kind": "order", "signature": ""})
    return world.send(wire._container(entry, raw_bytes(flat)))


def signed_as_another_kind(world: World) -> Code | None:
    order, flat = world.order()
    body = wire._plain("order", order)
    signature = ORDER_KEY.sign(b"fedser/update/1\n" + wire._canonical(body).encode()).hex()
    return world.send(
        wire._container(wire._canonical({"body": body, "kind": "order", "signature": signature}), raw_bytes(flat))
    )


def exchanged_weights(world: World) -> Code | None:
    order, flat = world.order()
    data = wire.encode(order, flat, ORDER_KEY)
    return world.send(data[: -4 * len(flat)] + raw_bytes(flat + 0.01))


def own_reply_back(world: World) -> Code | None:
    return world.send(World().site.answer(wire.encode(*world.order(), ORDER_KEY)))


def after_round_three(**changes: Any) -> Callable[[World], Code | None]:
    def attack(world: World) -> Code | None:
        assert world.ask(*world.order(round=3)) is None
        return world.ask(*world.order(**changes))

    return attack


def changed(**changes: Any) -> Callable[[World], Code | None]:
    def attack(world: World) -> Code | None:
        order, flat = world.order()
        return world.ask(replace(order, **changes), flat)

    return attack


ORDERS: dict[str, tuple[Callable[[World], Code | None], Code]] = {
    "signed by someone else": (resigned, Code.MALFORMED),
    "not signed": (unsigned, Code.MALFORMED),
    "signed as another kind of message": (signed_as_another_kind, Code.MALFORMED),
    "weights exchanged after signing": (exchanged_weights, Code.MALFORMED),
    "the site's own reply sent back": (own_reply_back, Code.MALFORMED),
    "expired": (changed(expires=10**9 - 1), Code.EXPIRED),
    "of another study": (changed(study="another"), Code.OTHER_STUDY),
    "for another site": (changed(site="site-2"), Code.OTHER_SITE),
    "of an earlier round": (after_round_three(round=2), Code.STALE),
    "of an earlier round with a later attempt": (after_round_three(round=2, attempt=9), Code.STALE),
    "of the same round with other contents": (after_round_three(round=3, seed=1), Code.STALE),
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_forged_order_is_refused_with_its_code(name: str) -> None:
    attack, code = ORDERS[name]
    world = World()
    assert attack(world) == code
    assert world.ask(*world.order(round=4)) is None


def test_a_replayed_order_gets_the_same_bytes_and_no_second_computation() -> None:
    world = World()
    data = wire.encode(*world.order(), ORDER_KEY)
    assert world.site.answer(data) == world.site.answer(data)
    assert world.computed == 1
    assert [record["event"] for record in world.log.records] == ["update", "resent"]
