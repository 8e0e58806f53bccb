"""Masked sums without training: sites that answer at once with a fixed update, and a transport that loses mail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.federation import wire
from fedser.federation.plan import Plan
from fedser.federation.provider import Provider, Silence
from fedser.federation.schema import Code, Order, Refusal
from fedser.federation.secure_schema import Asked, KeysOrder, Roster, Survivors, Unmask
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.secure_site import SecureSite
from fedser.federation.secure_state import SecureState
from fedser.federation.stages import apply_update, together
from fedser.privacy.settings import MaskingSettings

PROVIDER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([99] * 32)))
SIZE = 40
STEPS = {"keys": KeysOrder, "shares": Roster, "train": Order, "survivors": Survivors, "unmask": Unmask}


def name(number: int) -> str:
    return f"site-{number:02d}"


def key(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number + 1] * 32)))


class Stub:
    """A site whose update is given: integers on the grid."""

    def __init__(self, number: int, size: int = SIZE, policy: MaskingSettings | None = None) -> None:
        self.number, self.name, self.key = number, name(number), key(number)
        self.integers: NDArray[np.int64] = np.random.default_rng(number).integers(-(2**20), 2**20, size)
        self.kept: list[SecureState] = []
        self.secure = SecureSite(
            self.name, policy or MaskingSettings(), self.key, SecureState(study="study"), self.kept.append
        )

    def answer(self, data: bytes) -> bytes:
        opened = wire.read(data, PROVIDER.public_hex)
        said = self.said(opened.message)
        if isinstance(said, bytes):
            return said
        refusal = Refusal(protocol=1, order_digest=wire.order_digest(opened.message), code=said)
        return wire.encode(refusal, wire.NOTHING, self.key)

    def said(self, asked: Any) -> bytes | Code:
        if isinstance(asked, Asked):
            return self.secure.answer(asked)
        code = self.secure.admit(asked)
        if code is not None:
            return code
        update, payload, state = self.secure.masked(asked, self.integers)
        self.secure.keep(state)
        return wire.encode(update, payload, self.key)


@dataclass
class Post:
    """A transport in this process.

    Attributes:
        silent: by site, the step from which on it is silent; ``train after`` computes, and its answer is lost.
        change: may replace a reply: (site, message, reply) → reply.
    """

    sites: Mapping[str, Any]
    silent: Mapping[str, str] = field(default_factory=dict)
    change: Callable[[str, Any, bytes], bytes] = lambda site, asked, reply: reply
    passed: list[tuple[str, Any, bytes, bytes]] = field(default_factory=list)

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        for site, order in orders:
            asked = wire.read(order, PROVIDER.public_hex).message
            step = next(step for step, kind in STEPS.items() if isinstance(asked, kind))
            lost = self._lost(site, step)
            if lost and not (step == "train" and self.silent[site] == "train after"):
                yield site, Silence("The site vanished.")
                continue
            reply = self.change(site, asked, self.sites[site].answer(order))
            self.passed.append((site, asked, order, reply))
            yield site, Silence("The answer was lost.") if lost else reply

    def _lost(self, site: str, step: str) -> bool:
        steps = list(STEPS)
        return site in self.silent and steps.index(step) >= steps.index(self.silent[site].split()[0])


def stubs(count: int, size: int = SIZE, policy: MaskingSettings | None = None) -> dict[str, Stub]:
    return {name(number): Stub(number, size, policy) for number in range(count)}


def plan(sites: Mapping[str, Stub], size: int = SIZE, **terms: Any) -> Plan:
    return Plan(
        study="study",
        sites={site: stub.key.public_hex for site, stub in sites.items()},
        method="ecan",
        options={},
        layout=(("weight", (size,)),),
        schedule=Schedule(steps=4),
        rounds=2,
        largest_norm=1e4,
        masking=MaskingTerms(**terms),
    )


def provider(sites: Mapping[str, Stub], transport: Any, size: int = SIZE, **terms: Any) -> Provider:
    return Provider(plan(sites, size, **terms), PROVIDER, transport, (together(), apply_update()))


def start(size: int = SIZE) -> torch.Tensor:
    return torch.zeros(size)


def mean_of(sites: Iterable[Stub], grid: int = 20) -> torch.Tensor:
    """What the masked mean must be, bit by bit: Python's integers, summed without any mask."""
    chosen = list(sites)
    sums = [sum(int(value) for value in column) for column in np.stack([site.integers for site in chosen]).T]
    return torch.tensor([total * (2.0**-grid / len(chosen)) for total in sums], dtype=torch.float64).float()
