"""A site signs off: only its own key can, it is shut out at once, and a repeat changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fedser_server.attempts import Attempts
from fedser_server.roster import RefusedError
from fedser_server.state import State
from fedser_server.withdrawal import Withdrawal
from starlette.applications import Starlette
from starlette.routing import Route

from fedser.bundle.keys import SigningKey
from fedser.federation import enrolment
from fedser.federation.withdrawal import PATH

Body = dict[str, Any]


class World:
    """A provider with one enrolled site, its leave route, and what was recorded."""

    def __init__(self, folder: Path) -> None:
        self.state = State.open(folder, study="trial")
        self.records: list[Body] = []
        self.key = Ed25519PrivateKey.generate()
        self.node = ec.generate_private_key(ec.SECP384R1())
        self.token = self.enrol("site-a", self.node, self.key)
        self.app = Withdrawal(self.state, self.records.append, Attempts(each=1000, together=1000))

    def enrol(self, name: str, node: ec.EllipticCurvePrivateKey, key: Ed25519PrivateKey) -> str:
        token = self.state.roster.invite(name, 60)
        self.state.roster.enrol(enrolment.request("trial", name, token, node, SigningKey(key)))
        return token

    def word(self, key: Ed25519PrivateKey | None = None, **changes: Any) -> Body:
        """The request, written independently of the library."""
        key = key or self.key
        public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        body: Body = {"protocol": 1, "study": "trial", "site": "site-a", "reply_key": public, **changes}
        data = b"fedser/leave/1\n" + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        return {**body, "proof": key.sign(data).hex()}

    def post(self, body: Body | bytes) -> httpx.Response:
        app = Starlette(routes=[Route(PATH, self.app.leave, methods=["POST"])])

        async def send() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://localhost") as client:
                return await client.post(PATH, content=body if isinstance(body, bytes) else json.dumps(body).encode())

        return asyncio.run(send())

    def digest(self) -> str:
        return hashlib.sha256(self.state.roster.path.read_bytes()).hexdigest()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "provider")


def test_a_site_that_leaves_is_shut_out_for_good_and_a_repeat_is_answered(world: World) -> None:
    assert world.post(world.word()).status_code == 200
    entry = world.state.roster.entries()["site-a"]
    assert (entry.status, entry.left is not None, entry.revoked) == ("left", True, None)
    before = world.digest()
    assert world.post(world.word()).status_code == 200
    assert world.digest() == before
    assert [record["event"] for record in world.records] == ["left"]
    again = enrolment.request("trial", "site-a", world.token, world.node, SigningKey(world.key))
    with pytest.raises(RefusedError) as caught:
        world.state.roster.enrol(again)
    assert caught.value.code == "revoked"


def test_its_name_can_be_invited_anew_but_its_keys_never_come_back(world: World) -> None:
    world.post(world.word())
    token = world.state.roster.invite("site-a", 60)
    with pytest.raises(RefusedError) as caught:
        world.state.roster.enrol(enrolment.request("trial", "site-a", token, world.node, SigningKey(world.key)))
    assert caught.value.code == "key"
    fresh = Ed25519PrivateKey.generate()
    node = ec.generate_private_key(ec.SECP384R1())
    world.state.roster.enrol(enrolment.request("trial", "site-a", token, node, SigningKey(fresh)))
    assert world.post(world.word()).status_code == 403  # the old word, captured and sent once more
    assert world.state.roster.entries()["site-a"].status == "enrolled"


@pytest.mark.parametrize("fault", ["key", "proof", "site", "study", "protocol", "field", "json"])
def test_what_is_not_the_sites_own_word_changes_nothing(world: World, fault: str) -> None:
    other = Ed25519PrivateKey.generate()
    world.enrol("site-b", ec.generate_private_key(ec.SECP384R1()), other)
    bodies: dict[str, Body | bytes] = {
        "key": world.word(other),
        "proof": world.word() | {"proof": "0" * 128},
        "site": world.word() | {"site": "site-b"},
        "study": world.word(study="another"),
        "protocol": world.word(protocol=2),
        "field": world.word() | {"reason": "none of your business"},
        "json": b"{" * 500,
    }
    before = world.digest()
    told = world.post(bodies[fault])
    assert told.status_code in (400, 403)
    assert world.digest() == before
    assert [record["event"] for record in world.records] == ["leave refused"]


def test_attempts_are_counted(world: World) -> None:
    world.app = Withdrawal(world.state, world.records.append, Attempts(each=2, together=10))
    bad = world.word() | {"proof": "0" * 128}
    assert [world.post(bad).status_code for _ in range(3)] == [403, 403, 429]
