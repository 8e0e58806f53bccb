"""A small federation: tiny models, random features, real keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.compute import generator
from fedser.federation.layout import layout_of, pack
from fedser.federation.policy import Policy
from fedser.federation.provider import Plan, Provider
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, apply_update, average
from fedser.models import EmotionClassifier, ModelSettings, initialise

CLASSES = ("anger", "neutral", "sadness")
FEATURES = 6


def key(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))


ORDER_KEY = key(99)


def small_model() -> EmotionClassifier:
    model = EmotionClassifier(ModelSettings(hidden=8, depth=2, bottleneck=4), (FEATURES,), CLASSES)
    initialise(model, generator("test model"))
    return model.eval()


def local_data(number: int, utterances: int = 24) -> LocalData:
    x = torch.randn(utterances, FEATURES, generator=generator("test data", number)) + number / 4
    return LocalData(small_model(), x, speakers=2)


@dataclass
class Wired:
    """A transport over sites in this process that remembers what passed."""

    sites: Mapping[str, Site]

    def __post_init__(self) -> None:
        self.orders: list[tuple[str, bytes]] = []
        self.replies: list[tuple[str, bytes]] = []

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for site, order in orders:
            self.orders.append((site, order))
            reply = self.sites[site].answer(order)
            self.replies.append((site, reply))
            yield site, reply


class Lab:
    """Builds the parts of a small federation."""

    order_key = ORDER_KEY

    @staticmethod
    def key(number: int) -> SigningKey:
        return key(number)

    @staticmethod
    def data(number: int = 1, utterances: int = 24) -> LocalData:
        return local_data(number, utterances)

    @staticmethod
    def sites(count: int = 3, policy: Policy | None = None, **options: object) -> dict[str, Site]:
        return {f"site-{n}": Lab.site(n, policy, **options) for n in range(1, count + 1)}

    @staticmethod
    def site(number: int, policy: Policy | None = None, data: LocalData | None = None, **options: object) -> Site:
        return Site(
            f"site-{number}",
            "study",
            data or local_data(number),
            policy or Policy(),
            key(number),
            ORDER_KEY.public_hex,
            **options,
        )

    @staticmethod
    def plan(sites: Mapping[str, Site], steps: int = 6, rounds: int = 2, **options: object) -> Plan:
        model = small_model()
        names = {n for n in model.adaptable() if n not in model.first_layer() and not n.startswith("head.")}
        return Plan(
            study="study",
            sites={name: key(int(name.split("-")[1])).public_hex for name in sites},
            method=str(options.pop("method", "ecan")),
            options={},
            layout=layout_of(model, names),
            schedule=Schedule(steps=steps, batch_size=16),
            rounds=rounds,
            **options,
        )

    @staticmethod
    def provider(sites: Mapping[str, Site], plan: Plan | None = None, transport: object = None) -> Provider:
        return Provider(
            plan or Lab.plan(sites),
            ORDER_KEY,
            transport or Wired(sites),
            (average(), apply_update()),
        )

    @staticmethod
    def wired(sites: Mapping[str, Site]) -> Wired:
        return Wired(sites)

    @staticmethod
    def start(plan: Plan) -> torch.Tensor:
        return pack(dict(small_model().named_parameters()), plan.layout)


@pytest.fixture
def lab() -> Lab:
    return Lab()
