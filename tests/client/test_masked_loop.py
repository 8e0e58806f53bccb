"""A site's loop in masked sums: killed at any moment, its keys, shares and stored bytes are on the disk."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_client.data import SiteData

from fedser.bundle.keys import SigningKey
from fedser.federation import audit_entries, wire
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider
from fedser.federation.secure_schema import MaskedUpdate
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.site import Site
from fedser.federation.stages import apply_update, together
from tests.client.test_loop import KilledError, Post, World, data, once_at, same  # noqa: F401 - a fixture

PEERS = ("site-2", "site-3")
ROUND = [*audit_entries.MASKING[:2], "update", *audit_entries.MASKING[2:]]


@dataclass
class Mixed:
    """The site under test behind its line, and its peers in this process."""

    post: Post
    peers: dict[str, Site]

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Any]]:
        for site, order in orders:
            if site in self.peers:
                yield site, self.peers[site].answer(order)
            else:
                yield from self.post.exchange([(site, order)])


class Direct:
    """All three sites in this process."""

    def __init__(self, sites: dict[str, Site]) -> None:
        self.sites = sites

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for site, order in orders:
            yield site, self.sites[site].answer(order)


def key(name: str) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([int(name[-1])] * 32)))


def peers_of(world: World) -> dict[str, Site]:
    public = world.order_key.public_hex
    return {name: Site(name, "study", world.data.local, Policy(), key(name), public) for name in PEERS}


def provider(world: World, transport: Any) -> Provider:
    plain = world.make(transport)
    keys = {**plain.plan.sites, **{name: key(name).public_hex for name in PEERS}}
    plan = replace(plain.plan, sites=keys, rounds=2, masking=MaskingTerms(), quorum=2)
    return Provider(plan, world.order_key, transport, (together(), apply_update()))


@pytest.fixture
def world(folder: Any, settings: Any, data: SiteData, order_key: SigningKey) -> World:  # noqa: F811
    made = World(folder, settings.model_copy(update={"token": None}), data, order_key)
    made.provider = provider(made, Mixed(made.post, peers_of(made)))
    return made


@pytest.fixture
def undisturbed(world: World) -> dict[str, torch.Tensor]:
    site = Site("site-1", "study", world.data.local, Policy(), world.key, world.order_key.public_hex)
    provider(world, Direct({"site-1": site, **peers_of(world)})).run(world.start)
    return dict(site.state.personal)


def test_a_masked_study_over_lines_ends_as_in_one_process(
    world: World, undisturbed: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    world.serve()
    assert world.rounds().run()
    assert same(world.personal(), undisturbed)
    assert [event for event, _ in world.events()] == [*ROUND, *ROUND, "finished"]
    path = world.folder.file("masking.json")
    assert path.stat().st_mode & 0o077 == 0
    assert '"seed":""' in path.read_text()  # the last round's own secrets are gone
    told = capsys.readouterr().err
    assert told.count("round 1 of 3") == 1
    assert world.folder.status()["orders"] == 3
    assert not world.provider_error


@pytest.mark.parametrize(
    ("moment", "number"), [*(("answered", number) for number in range(1, 6)), ("received", 3), ("received", 5)]
)
def test_a_kill_at_any_moment_changes_nothing_and_masks_nothing_twice(
    world: World, undisturbed: dict[str, torch.Tensor], moment: str, number: int
) -> None:
    world.fault = once_at(moment, number, KilledError())
    world.serve()
    with pytest.raises(KilledError):
        world.rounds().run()
    assert world.rounds().run()
    assert same(world.personal(), undisturbed)
    opened = [wire.read(reply, world.key.public_hex) for reply in world.post.sent]
    payloads = {
        one.message.order_digest: one.flat.numpy().tobytes() for one in opened if isinstance(one.message, MaskedUpdate)
    }
    assert len(payloads) == len(set(payloads.values())) == 2
    assert not world.provider_error


def test_once_is_one_order_with_all_that_goes_before_it(world: World) -> None:
    thread: threading.Thread = world.serve()
    assert not world.rounds().run(once=True)
    assert [event for event, _ in world.events()] == ROUND[:3]
    assert world.rounds().run()
    thread.join(10)
    assert not world.provider_error
