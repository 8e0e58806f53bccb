"""Enrolment: what is refused, what that changes (nothing), and what is recorded."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fedser_server.attempts import Attempts, network
from fedser_server.enrolment import PATH, Enrolment
from fedser_server.state import State
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Route

from fedser.bundle.keys import SigningKey
from fedser.federation import enrolment

Body = dict[str, Any]


@dataclass
class Site:
    """A site's private keys, and the request that it makes with them, written independently of the library."""

    name: str
    token: str
    study: str = "trial"
    node: Any = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))
    reply: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def fields(self, **changes: Any) -> Body:
        pem = self.node.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        reply = self.reply.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        body = {"protocol": 1, "study": self.study, "site": self.name, "token": self.token}
        return {**body, "node_key": pem, "reply_key": reply, **changes}

    def signed(self, body: Body) -> Body:
        data = b"fedser/enrol/1\n" + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        proof = self.node.sign(data, ec.ECDSA(hashes.SHA256())) if hasattr(self.node, "curve") else b"\0" * 96
        return {**body, "node_proof": proof.hex(), "reply_proof": self.reply.sign(data).hex()}

    def body(self, **changes: Any) -> Body:
        return self.signed(self.fields(**changes))


def ask(handler: Enrolment, data: bytes | str) -> httpx.Response:
    """One request through the whole application, without a socket."""
    app = Starlette(routes=[Route(PATH, handler.enrol, methods=["POST"])])

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://localhost") as client:
            return await client.post(PATH, content=data)

    return asyncio.run(post())


class Provider:
    """A state folder, its enrolment route and what was recorded."""

    def __init__(self, folder: Path) -> None:
        self.state = State.open(folder, study="trial")
        self.records: list[dict[str, Any]] = []
        self.attempts = Attempts(each=10_000, together=10_000)
        handler = Enrolment(self.state, self.records.append, self.attempts)
        self._handler = handler

    def invite(self, name: str, lifetime: float = 60) -> Site:
        return Site(name, self.state.roster.invite(name, lifetime))

    def post(self, body: Body | bytes) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return ask(self._handler, data)

    def roster(self) -> str:
        return hashlib.sha256(self.state.roster.path.read_bytes()).hexdigest()


@pytest.fixture
def provider(tmp_path: Path) -> Provider:
    return Provider(tmp_path / "provider")


def test_a_site_enrols_and_may_try_again_with_the_same_keys(provider: Provider) -> None:
    site = provider.invite("site-a")
    answers = [provider.post(site.body()) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert answers[0].json() == {"protocol": 1, "study": "trial", "site": "site-a"}
    entry = provider.state.roster.entries()["site-a"]
    assert (entry.status, entry.node_key, entry.reply_key) == (
        "enrolled",
        site.fields()["node_key"],
        site.fields()["reply_key"],
    )
    assert [record["event"] for record in provider.records] == ["enrolled"] * 3


def test_trying_again_is_good_after_the_token_expired(provider: Provider) -> None:
    site = provider.invite("site-a")
    asked = enrolment.EnrolRequest.model_validate(site.body())
    provider.state.roster.enrol(asked)
    assert provider.state.roster.enrol(asked, now=time.time() + 10**6).status == "enrolled"


def test_the_library_makes_the_same_request(provider: Provider) -> None:
    site = provider.invite("site-a")
    made = enrolment.request("trial", "site-a", site.token, site.node, SigningKey(site.reply))
    assert made.model_dump(exclude={"node_proof"}) == {
        name: value for name, value in site.body().items() if name != "node_proof"
    }
    assert provider.post(made.model_dump()).status_code == 200


def _expired(provider: Provider) -> Body:
    return provider.invite("late", lifetime=-10).body()


def _revoked_before(provider: Provider) -> Body:
    site = provider.invite("gone")
    provider.state.roster.revoke("gone")
    return site.body()


def _revoked_after(provider: Provider) -> Body:
    site = provider.invite("gone")
    assert provider.post(site.body()).status_code == 200
    provider.state.roster.revoke("gone")
    return site.body()


def _other_keys(provider: Provider, **keep: Any) -> Body:
    site = provider.invite("site-b")
    assert provider.post(site.body()).status_code == 200
    return Site("site-b", site.token, **{name: getattr(site, name) for name in keep}).body()


def _enrolled_node_key(provider: Provider) -> Body:
    first = provider.invite("site-b")
    assert provider.post(first.body()).status_code == 200
    return Site("site-a", provider.invite("site-a").token, node=first.node).body()


def _enrolled_reply_key(provider: Provider) -> Body:
    first = provider.invite("site-b")
    assert provider.post(first.body()).status_code == 200
    return Site("site-a", provider.invite("site-a").token, reply=first.reply).body()


def _retired_key(provider: Provider) -> Body:
    first = provider.invite("site-b")
    assert provider.post(first.body()).status_code == 200
    provider.state.roster.revoke("site-b")
    return Site("site-b", provider.state.roster.invite("site-b", 60), node=first.node).body()


def _old_token_of_an_invited_again(provider: Provider) -> Body:
    site = provider.invite("site-b")
    provider.state.roster.revoke("site-b")
    provider.state.roster.invite("site-b", 60)
    return site.body()


def _proof(name: str, value: str | None = None) -> Callable[[Provider], Body]:
    """A request whose one proof is another site's, over another request, or a given text."""

    def make(provider: Provider) -> Body:
        site = provider.invite("site-a")
        return site.body() | {name: value or site.body(site="site-b")[name]}

    return make


def _swapped(provider: Provider) -> Body:
    """Both proofs by the other site's keys: somebody who overheard public keys and has keys of his own."""
    site, other = provider.invite("site-a"), Site("site-a", "x" * 22)
    return other.signed(site.fields())


def _key(make: Callable[[], Any]) -> Callable[[Provider], Body]:
    return lambda provider: Site("site-a", provider.invite("site-a").token, node=make()).body()


def _changed(**changes: Any) -> Callable[[Provider], Body]:
    return lambda provider: provider.invite("site-a").body(**changes)


def _without(name: str) -> Callable[[Provider], Body]:
    def make(provider: Provider) -> Body:
        site = provider.invite("site-a")
        body = site.fields()
        del body[name]
        return site.signed(body)

    return make


def _raw(edit: Callable[[str], str | bytes]) -> Callable[[Provider], bytes]:
    def make(provider: Provider) -> bytes:
        made = edit(json.dumps(provider.invite("site-a").body()))
        return made if isinstance(made, bytes) else made.encode()

    return make


REFUSED: dict[str, tuple[Callable[[Provider], Body | bytes], int, str]] = {
    # credentials
    "no token": (_without("token"), 400, "malformed"),
    "an empty token": (_changed(token=""), 400, "malformed"),
    "a wrong token": (_changed(token="A" * 22), 403, "token"),
    "a token one letter off": (
        lambda p: (lambda s: s.body(token=s.token[:-1] + ("A" if s.token[-1] != "A" else "B")))(p.invite("site-a")),
        403,
        "token",
    ),
    "an expired token": (_expired, 403, "expired"),
    "a revoked invitation": (_revoked_before, 403, "revoked"),
    "a revoked site": (_revoked_after, 403, "revoked"),
    "a used token with other keys": (_other_keys, 403, "key"),
    "a used token with another node key": (lambda p: _other_keys(p, reply=True), 403, "key"),
    "a used token with another reply key": (lambda p: _other_keys(p, node=True), 403, "key"),
    "another site's name": (
        lambda p: Site("site-b", (p.invite("site-a"), p.invite("site-b"))[0].token).body(),
        403,
        "token",
    ),
    "a name that nobody was invited under": (lambda p: Site("nobody", p.invite("site-a").token).body(), 403, "token"),
    "the token before the last": (_old_token_of_an_invited_again, 403, "token"),
    "another study": (_changed(study="other"), 403, "token"),
    "another protocol": (_changed(protocol=2), 409, "protocol"),
    "a node key of another site": (_enrolled_node_key, 403, "key"),
    "a reply key of another site": (_enrolled_reply_key, 403, "key"),
    "a key of a revoked site": (_retired_key, 403, "key"),
    "a node proof over another request": (_proof("node_proof"), 403, "proof"),
    "a reply proof over another request": (_proof("reply_proof"), 403, "proof"),
    "a node proof of zeros": (_proof("node_proof", "00" * 70), 403, "proof"),
    "a reply proof of zeros": (_proof("reply_proof", "00" * 64), 403, "proof"),
    "public keys without their private halves": (_swapped, 403, "proof"),
    "no node proof": (_raw(lambda text: text.replace("node_proof", "proof")), 400, "malformed"),
    # keys and forms
    "an RSA key": (_key(lambda: rsa.generate_private_key(65537, 2048)), 400, "malformed"),
    "a P-256 key": (_key(lambda: ec.generate_private_key(ec.SECP256R1())), 400, "malformed"),
    "an Ed25519 key as node key": (_key(lambda: _Plain(Ed25519PrivateKey.generate())), 400, "malformed"),
    "a malformed PEM": (
        _changed(node_key="-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
        400,
        "malformed",
    ),
    "no PEM": (_changed(node_key="hello"), 400, "malformed"),
    "a PEM that is too long": (_changed(node_key="A" * 2000), 400, "malformed"),
    "a reply key of 31 bytes": (_changed(reply_key="ab" * 31), 400, "malformed"),
    "a site that is a path": (_changed(site="../../etc"), 400, "malformed"),
    "a site with a newline": (_changed(site="site-a\n"), 400, "malformed"),
    "a protocol that is true": (_changed(protocol=True), 400, "malformed"),
    "a protocol as text": (_changed(protocol="1"), 400, "malformed"),
    "a token that is a number": (_changed(token=7), 400, "malformed"),
    "an unknown field": (_changed(role="provider"), 400, "malformed"),
    "a duplicate key": (_raw(lambda text: text[:-1] + ',"site":"site-a"}'), 400, "malformed"),
    "not a number": (_raw(lambda text: text[:-1] + ',"x":NaN}'), 400, "malformed"),
    "an oversized body": (_raw(lambda text: text + " " * 9000), 413, "malformed"),
    "no JSON": (_raw(lambda text: text[:-5]), 400, "malformed"),
    "a list": (_raw(lambda text: f"[{text}]"), 400, "malformed"),
    "deep JSON": (_raw(lambda _: "[" * 8000), 400, "malformed"),
    "bytes that are no text": (_raw(lambda _: b"\xff\xfe\x00\x80" * 99), 400, "malformed"),
    "a number of 5000 digits": (_raw(lambda text: text[:-1] + ',"x":' + "9" * 5000 + "}"), 400, "malformed"),
    "an empty body": (_raw(lambda _: b""), 400, "malformed"),
}


class _Plain:
    """A private key that signs without further arguments."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def public_key(self) -> Any:
        return self._key.public_key()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_recorded_and_nothing_changed(provider: Provider, name: str) -> None:
    make, status, code = REFUSED[name]
    body = make(provider)
    before = provider.roster()
    provider.records.clear()
    answer = provider.post(body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    assert answer.json()["hint"]
    assert provider.roster() == before
    (record,) = provider.records
    assert (record["event"], record["why"]) == ("enrolment refused", code)
    shown = json.dumps(record) + answer.text
    for secret in ("token", "node_key", "reply_key", "node_proof"):
        value = body.get(secret) if isinstance(body, dict) else None
        assert not (isinstance(value, str) and len(value) > 10 and value in shown)


def test_another_protocol_is_told_both_versions(provider: Provider) -> None:
    answer = provider.post(provider.invite("site-a").body(protocol=2)).json()
    assert answer["protocol"] == 1
    assert "version 2" in answer["message"]
    assert "version 1" in answer["message"]


def test_without_the_right_token_answers_tell_nothing(provider: Provider) -> None:
    used = provider.invite("used")
    assert provider.post(used.body()).status_code == 200
    provider.invite("open")
    provider.invite("gone")
    provider.state.roster.revoke("gone")
    answers = {provider.post(Site(name, "A" * 22).body()).text for name in ("used", "open", "gone", "nobody")}
    assert len(answers) == 1


def test_the_same_key_written_in_another_way_is_the_same_key(provider: Provider) -> None:
    first = provider.invite("site-b")
    assert provider.post(first.body()).status_code == 200
    second = Site("site-a", provider.invite("site-a").token, node=first.node)
    other_pem = second.fields()["node_key"].replace("\n", "\r\n")
    assert provider.post(second.body(node_key=other_pem)).json()["code"] == "key"


def test_a_damaged_roster_answers_503_and_says_nothing_of_it(provider: Provider) -> None:
    body = provider.invite("site-a").body()
    provider.state.roster.path.write_text("{")
    answer = provider.post(body)
    assert answer.status_code == 503
    assert str(provider.state.folder) not in answer.text
    assert provider.records[-1]["why"] == "unavailable"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_ten_attempts_a_minute_for_a_peer_and_sixty_for_all() -> None:
    clock = Clock()
    attempts = Attempts(clock=clock)
    assert [attempts.take("10.0.0.1") for _ in range(12)] == [True] * 10 + [False] * 2
    assert sum(attempts.take(f"10.0.1.{k}") for k in range(100)) == 50
    clock.now = 59.9
    assert not attempts.take("10.9.9.9")
    clock.now = 60.1
    assert attempts.take("10.0.0.1")


def test_a_network_of_ipv6_addresses_is_one_peer() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:1") != network("2001:db8:0:1::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1")
    assert network("fe80::1%eth0") == network("fe80::2")


def test_too_many_attempts_are_refused_before_the_token_is_looked_at(tmp_path: Path) -> None:
    provider = Provider(tmp_path / "provider")
    handler = Enrolment(provider.state, provider.records.append)
    site = provider.invite("site-a")
    statuses = [ask(handler, json.dumps(site.body(token="A" * 22))).status_code for _ in range(10)]
    assert statuses == [403] * 10
    assert [ask(handler, json.dumps(site.body())).status_code for _ in range(30)] == [429] * 30
    assert provider.state.roster.entries()["site-a"].status == "invited"
    assert [record["why"] for record in provider.records] == ["token"] * 10 + ["rate"]  # told once, not thirty times


def test_the_roster_keeps_no_token(provider: Provider) -> None:
    site = provider.invite("site-a")
    everything = b"".join(path.read_bytes() for path in provider.state.folder.rglob("*") if path.is_file())
    assert site.token.encode() not in everything
    assert hashlib.sha256(site.token.encode()).hexdigest().encode() in everything


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_body_holds_it_is_refused_and_changes_nothing(provider: Provider, data: st.DataObject) -> None:
    body = Site("site-a", "A" * 22).body()
    anything = (
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=99) | st.binary().map(bytes.hex)
    )
    changed = st.dictionaries(st.sampled_from([*body, "x"]), anything).map(lambda c: json.dumps(body | c).encode())
    before = provider.roster()
    answer = provider.post(data.draw(st.binary(max_size=500) | changed))
    assert answer.status_code in (400, 403, 409)
    assert provider.roster() == before
