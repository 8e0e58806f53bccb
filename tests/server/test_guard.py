"""Who is let in and which paths are there: a raw TLS socket against the real guard, credentials and fleet routes."""

from __future__ import annotations

import contextlib
import datetime
import json
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fedser_server import node as nodes
from fedser_server import tls
from fedser_server.guard import Guard, Way
from fedser_server.serving import Serving
from fedser_server.state import State

from fedser.errors import EnrolmentError
from fedser.federation.flower import environment

environment.prepare(Path("/nonexistent"))

from flwr.common.constant import TIMESTAMP_HEADER  # noqa: E402
from flwr.proto.fleet_pb2 import PullMessagesRequest  # noqa: E402
from flwr.proto.node_pb2 import Node  # noqa: E402
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER  # noqa: E402
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message  # noqa: E402

from fedser.federation.flower.credentials import Credentials  # noqa: E402
from fedser.federation.flower.mailroom import Mailroom  # noqa: E402
from fedser.federation.flower.routes import Routes  # noqa: E402

PULL = "/v1/fleet/pull-messages"
PUSH = "/v1/fleet/push-object"
BUNDLE = "/v1/fedser/bundle"
ENROL = "/v1/fedser/enrol"
Headers = list[tuple[str, str]]


def now(seconds: float = 0.0) -> str:
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def signed(key: Any, moment: str | None = None, *, sign: bytes | None = None, show: Any = None) -> Headers:
    """Flower's headers for a key; ``sign`` is signed in place of the moment, ``show`` is presented for the key."""
    moment = now() if moment is None else moment
    return [
        (FLEET_HTTP_PUBLIC_KEY_HEADER, b64encode(public_key_to_bytes((show or key).public_key())).decode()),
        (FLEET_HTTP_SIGNATURE_HEADER, b64encode(sign_message(key, moment.encode() if sign is None else sign)).decode()),
        (TIMESTAMP_HEADER, moment),
    ]


@dataclass
class Front:
    """A node's front: guard, credentials and fleet routes, with two sites and one that was revoked."""

    state: State
    room: Mailroom
    records: list[Any] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self.keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in ("site-a", "site-b", "revoked")}
        for name in ("site-a", "site-b"):
            self.room.admit(name, public_key_to_bytes(self.keys[name].public_key()))
        self.known = {public_key_to_bytes(self.keys[name].public_key()): name for name in ("site-a", "site-b")}
        self.credentials = Credentials()
        self.fleet = Routes(self.room, hold=0.0, record=self.records.append)

    def guard(self) -> Guard:
        async def own(scope: Any, receive: Any, send: Any) -> None:
            self.served.append(scope["path"])
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

        def authenticate(headers: Any) -> str:
            return self.known[self.credentials.check(headers, self.known)]

        ways = {BUNDLE: Way("GET", own), ENROL: Way("POST", own, 8192)} | nodes._fleet_ways(self.fleet, 1 << 20)
        return Guard(ways, authenticate, lambda peer: True, self.records.append)

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        return ssl.create_default_context(cadata=self.state.ca).wrap_socket(plain, server_hostname="localhost")

    def talk(self, data: bytes) -> bytes:
        """What comes back until the end of the connection, or of one answer."""
        with self.connect() as connection:
            connection.sendall(data)
            return answer(connection)

    def ask(self, line: str, headers: Headers = (), body: bytes = b"") -> bytes:  # type: ignore[assignment]
        lines = [line, "host: localhost", f"content-length: {len(body)}", "content-type: application/protobuf"]
        lines += [f"{name}: {value}" for name, value in headers]
        return self.talk("\r\n".join([*lines, "", ""]).encode("utf-8") + body)

    def pull(self, headers: Headers, site: str = "site-a") -> bytes:
        body = PullMessagesRequest(node=Node(node_id=self.room._nodes[site])).SerializeToString()
        return self.ask(f"POST {PULL} HTTP/1.1", headers, body)


def answer(connection: ssl.SSLSocket, patience: float = 5.0) -> bytes:
    """One answer, or what came until the other side ended the connection."""
    connection.settimeout(patience)
    got = b""
    with contextlib.suppress(TimeoutError, OSError):
        while part := connection.recv(65536):
            got += part
            head, gap, rest = got.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if gap and length and len(rest) >= int(length[0].split(b":")[1]):
                break
            if gap and head.lower().endswith(b"chunked") and rest.endswith(b"0\r\n\r\n"):
                break
    return got


def status(got: bytes) -> int:
    return int(got.split(b" ")[1]) if got else 0


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    state = State.open(tmp_path_factory.mktemp("provider") / "state")
    made = Front(state, Mailroom(1 << 20))
    with Serving(made.guard(), tls.LiveContext(state.certificates()), "127.0.0.1", 0) as serving:
        made.port = serving.port
        yield made
        made.room.close()


@pytest.fixture(autouse=True)
def _clean(front: Front) -> None:
    front.records.clear()
    front.served.clear()


# --- credentials -----------------------------------------------------------------------------------------------------


def drop(name: str) -> Callable[[Front], Headers]:
    return lambda f: [header for header in signed(f.keys["site-a"]) if header[0] != name]


def change(name: str, value: Callable[[str], str]) -> Callable[[Front], Headers]:
    return lambda f: [(n, value(v) if n == name else v) for n, v in signed(f.keys["site-a"])]


def doubled(name: str) -> Callable[[Front], Headers]:
    def headers(f: Front) -> Headers:
        good, other = signed(f.keys["site-a"]), signed(f.keys["site-b"])
        return [header for header in other if header[0] == name] + good

    return headers


def rsa_key(f: Front) -> Headers:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return [(FLEET_HTTP_PUBLIC_KEY_HEADER, b64encode(key.public_key().public_bytes(*form)).decode()), *drop_key(f)]


def drop_key(f: Front) -> Headers:
    return signed(f.keys["site-a"])[1:]


def other_hash(f: Front) -> Headers:
    moment = now()
    raw = f.keys["site-a"].sign(moment.encode(), ec.ECDSA(hashes.SHA1()))  # noqa: S303 - what an attacker may try
    return [
        (n, b64encode(raw).decode() if n == FLEET_HTTP_SIGNATURE_HEADER else v)
        for n, v in signed(f.keys["site-a"], moment)
    ]


CREDENTIALS: dict[str, Callable[[Front], Headers]] = {
    "none": lambda f: [],
    "no key": drop(FLEET_HTTP_PUBLIC_KEY_HEADER),
    "no signature": drop(FLEET_HTTP_SIGNATURE_HEADER),
    "no timestamp": drop(TIMESTAMP_HEADER),
    "unknown key": lambda f: signed(ec.generate_private_key(ec.SECP384R1())),
    "revoked": lambda f: signed(f.keys["revoked"]),
    "wrong key: a stranger signs, the site's key is shown": lambda f: signed(
        ec.generate_private_key(ec.SECP384R1()), show=f.keys["site-a"]
    ),
    "another site signs, this site's key is shown": lambda f: signed(f.keys["site-b"], show=f.keys["site-a"]),
    "another site's key and node, this one's node id": lambda f: signed(f.keys["site-b"]),
    "expired timestamp": lambda f: signed(f.keys["site-a"], now(-4000)),
    "just expired timestamp": lambda f: signed(f.keys["site-a"], now(-320)),
    "future timestamp": lambda f: signed(f.keys["site-a"], now(60)),
    "timestamp without a zone": lambda f: signed(f.keys["site-a"], now().split("+")[0]),
    "timestamp that is none": lambda f: signed(f.keys["site-a"], "yesterday"),
    "timestamp of the year 9999": lambda f: signed(f.keys["site-a"], "9999-12-31T23:59:59-12:00"),
    "empty timestamp": lambda f: signed(f.keys["site-a"], ""),
    "signature of other text": lambda f: signed(f.keys["site-a"], sign=b"something else"),
    "signature of nothing": lambda f: signed(f.keys["site-a"], sign=b""),
    "signature with another hash": other_hash,
    "moved timestamp": change(TIMESTAMP_HEADER, lambda v: now(-1)),
    "malformed base64 key": change(FLEET_HTTP_PUBLIC_KEY_HEADER, lambda v: "!" + v),
    "malformed base64 signature": change(FLEET_HTTP_SIGNATURE_HEADER, lambda v: v[:-3] + "***"),
    "empty key": change(FLEET_HTTP_PUBLIC_KEY_HEADER, lambda v: ""),
    "empty signature": change(FLEET_HTTP_SIGNATURE_HEADER, lambda v: ""),
    "too long signature": change(FLEET_HTTP_SIGNATURE_HEADER, lambda v: "A" * 4096),
    "too long key": change(FLEET_HTTP_PUBLIC_KEY_HEADER, lambda v: v + "A" * 4096),
    "doubled key": doubled(FLEET_HTTP_PUBLIC_KEY_HEADER),
    "doubled signature": doubled(FLEET_HTTP_SIGNATURE_HEADER),
    "doubled timestamp": doubled(TIMESTAMP_HEADER),
    "RSA key": rsa_key,
    "P-256 key": lambda f: signed(ec.generate_private_key(ec.SECP256R1())),
    "P-521 key": lambda f: signed(ec.generate_private_key(ec.SECP521R1())),
    "a bearer token instead": lambda f: [("authorization", "Bearer abc"), ("cookie", "site=site-a")],
}


@pytest.mark.parametrize("name", CREDENTIALS)
def test_credentials_that_do_not_fit_are_refused_and_recorded(front: Front, name: str) -> None:
    before = dict(front.room._heard)
    got = front.pull(CREDENTIALS[name](front))
    assert status(got) == 401
    assert len(front.records) == 1
    assert front.records[0]["event"] == "refused"
    told = json.dumps(front.records)
    assert "BEGIN PUBLIC" not in told
    assert b64encode(b"-----BEGIN PUBLIC").decode() not in told
    assert front.room._heard == before


def test_the_right_credentials_are_let_in_once(front: Front) -> None:
    headers = signed(front.keys["site-a"])
    assert status(front.pull(headers)) == 200
    assert status(front.pull(headers)) == 401  # replayed: the same signed headers twice
    assert [record["why"] for record in front.records] == ["The request's headers were used before."]
    assert status(front.pull([(name.upper(), value) for name, value in signed(front.keys["site-a"])])) == 200


def test_replayed_headers_do_not_fit_another_route(front: Front) -> None:
    headers = signed(front.keys["site-a"])
    assert status(front.pull(headers)) == 200
    assert status(front.ask("POST /v1/fleet/deactivate-node HTTP/1.1", headers)) == 401


def test_headers_are_remembered_for_as_long_as_they_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    public, credentials = public_key_to_bytes(key.public_key()), Credentials()
    headers = [(name.encode(), value.encode()) for name, value in signed(key)]
    assert credentials.check(headers, {public}) == public
    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 309)
    with pytest.raises(EnrolmentError, match="before"):
        credentials.check(headers, {public})
    monkeypatch.setattr(time, "monotonic", lambda: clock() + 4000)
    credentials.check([(name.encode(), value.encode()) for name, value in signed(key)], {public})
    assert len(credentials._seen) == len(credentials._order) == 1


# --- paths -----------------------------------------------------------------------------------------------------------

PATHS = {
    "encoded slash": "POST /v1%2Ffleet/pull-messages HTTP/1.1",
    "encoded letter": "POST /v1/fleet/%70ull-messages HTTP/1.1",
    "double encoding": "POST /v1/fleet/%2570ull-messages HTTP/1.1",
    "double slash": "POST //v1/fleet/pull-messages HTTP/1.1",
    "double slash within": "POST /v1/fleet//pull-messages HTTP/1.1",
    "dot segment": "POST /v1/fleet/./pull-messages HTTP/1.1",
    "parent segment": "POST /v1/fleet/x/../pull-messages HTTP/1.1",
    "encoded parent segment": "POST /v1/fleet/%2e%2e/fleet/pull-messages HTTP/1.1",
    "encoded dot": "POST /v1/fleet/%2e/pull-messages HTTP/1.1",
    "trailing slash": "POST /v1/fleet/pull-messages/ HTTP/1.1",
    "trailing dot": "POST /v1/fleet/pull-messages. HTTP/1.1",
    "upper case": "POST /V1/FLEET/PULL-MESSAGES HTTP/1.1",
    "absolute form": "POST https://localhost/v1/fleet/pull-messages HTTP/1.1",
    "query": "POST /v1/fleet/pull-messages?x=1 HTTP/1.1",
    "encoded query": "POST /v1/fleet/pull-messages%3Fx=1 HTTP/1.1",
    "fragment": "POST /v1/fleet/pull-messages#x HTTP/1.1",
    "encoded null byte": "POST /v1/fleet/pull-messages%00 HTTP/1.1",
    "null byte": "POST /v1/fleet/pull-messages\0 HTTP/1.1",
    "parameters": "POST /v1/fleet/pull-messages;x=1 HTTP/1.1",
    "backslash": "POST /v1\\fleet\\pull-messages HTTP/1.1",
    "encoded backslash": "POST /v1%5Cfleet%5Cpull-messages HTTP/1.1",
    "unicode": "POST /v1/fleet/pull\u2010messages HTTP/1.1",
    "overlong unicode": "POST /v1%C0%AFfleet/pull-messages HTTP/1.1",
    "full-width letters": "POST /v1/fleet/%EF%BD%90ull-messages HTTP/1.1",
    "encoded newline": "POST /v1/fleet/pull-messages%0d%0ax:y HTTP/1.1",
    "tabulator": "POST\t/v1/fleet/pull-messages\tHTTP/1.1",
    "no path": "POST * HTTP/1.1",
    "another host's": "CONNECT localhost:443 HTTP/1.1",
    "GET on the fleet": "GET /v1/fleet/pull-messages HTTP/1.1",
    "HEAD on the fleet": "HEAD /v1/fleet/pull-messages HTTP/1.1",
    "PUT on the fleet": "PUT /v1/fleet/pull-messages HTTP/1.1",
    "OPTIONS on the fleet": "OPTIONS /v1/fleet/pull-messages HTTP/1.1",
    "TRACE on the fleet": "TRACE /v1/fleet/pull-messages HTTP/1.1",
    "lower-case method": "post /v1/fleet/pull-messages HTTP/1.1",
    "what is not served": "POST /v1/fleet/register-node HTTP/1.1",
    "unregister": "POST /v1/fleet/unregister-node HTTP/1.1",
    "code": "POST /v1/fleet/get-fab HTTP/1.1",
    "run": "POST /v1/fleet/get-run HTTP/1.1",
    "control": "POST /v1/control/start-run HTTP/1.1",
    "runtime": "POST /v1/runtime/pull-task-input HTTP/1.1",
    "docs": "GET /docs HTTP/1.1",
    "POST to the bundle": "POST /v1/fedser/bundle HTTP/1.1",
    "bundle with a query": "GET /v1/fedser/bundle?file=/etc/passwd HTTP/1.1",
    "under the bundle": "GET /v1/fedser/bundle/../../etc/passwd HTTP/1.1",
}


@pytest.mark.parametrize("name", PATHS)
def test_no_other_way_of_writing_a_path_leads_anywhere(front: Front, name: str) -> None:
    """With the right credentials, so that the path alone decides."""
    before = dict(front.room._heard)
    got = front.ask(PATHS[name], signed(front.keys["site-a"]))
    assert status(got) in (400, 404)
    assert not front.served
    assert front.room._heard == before


@pytest.mark.parametrize("header", ["x-http-method-override", "x-http-method", "x-method-override"])
def test_headers_do_not_change_the_method(front: Front, header: str) -> None:
    got = front.ask(f"GET {PULL} HTTP/1.1", [*signed(front.keys["site-a"]), (header, "POST")])
    assert status(got) == 404


@pytest.mark.parametrize("header", ["x-original-url", "x-rewrite-url", "x-forwarded-prefix", "x-script-name"])
def test_headers_do_not_change_the_path(front: Front, header: str) -> None:
    assert status(front.ask("GET /nothing HTTP/1.1", [(header, BUNDLE)])) == 404
    assert not front.served


def test_the_peer_is_who_is_connected_and_not_who_it_says(front: Front) -> None:
    claims = [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1"), ("x-real-ip", "10.0.0.1")]
    assert status(front.pull(claims)) == 401
    assert front.records[0]["peer"] == "127.0.0.1"


def test_what_is_open_is_open(front: Front) -> None:
    assert status(front.ask(f"GET {BUNDLE} HTTP/1.1")) == 200
    assert status(front.ask(f"HEAD {BUNDLE} HTTP/1.1")) == 200
    assert status(front.ask(f"POST {ENROL} HTTP/1.1", body=b"{}")) == 200
    assert front.served == [BUNDLE, BUNDLE, ENROL]


# --- bodies ----------------------------------------------------------------------------------------------------------


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "host: localhost", *headers, "", ""]).encode()


LENGTHS = {
    "10 GB": "content-length: 10737418240",
    "one byte too much": "content-length: 8193",
    "a number of a thousand digits": "content-length: " + "9" * 1000,
    "negative": "content-length: -1",
    "hexadecimal": "content-length: 0x10",
    "no number": "content-length: many",
    "two": "content-length: 5\r\ncontent-length: 6",
    "a list": "content-length: 5, 6",
}


@pytest.mark.parametrize("name", LENGTHS)
def test_declared_lengths_are_refused_before_anything_is_read(front: Front, name: str) -> None:
    begin = time.monotonic()
    got = front.talk(head(f"POST {ENROL} HTTP/1.1", LENGTHS[name]))
    assert status(got) in (400, 413)
    assert time.monotonic() - begin < 2
    assert not front.served


def test_endless_chunks_end(front: Front) -> None:
    with front.connect() as connection:
        connection.sendall(head(f"POST {ENROL} HTTP/1.1", "transfer-encoding: chunked"))
        piece = b"1000\r\n" + bytes(4096) + b"\r\n"
        with contextlib.suppress(OSError):  # the other side ends it
            for _ in range(2000):
                connection.sendall(piece)
        got = answer(connection)
    assert status(got) in (0, 413)  # an answer may be lost to the reset
    assert [record["why"] for record in front.records] == ["The request is too large."]
    assert not front.served


def test_chunks_beside_a_length_are_counted(front: Front) -> None:
    got = front.talk(
        head(f"POST {ENROL} HTTP/1.1", "content-length: 2", "transfer-encoding: chunked")
        + b"3000\r\n"
        + bytes(0x3000)
        + b"\r\n0\r\n\r\n"
    )
    assert status(got) in (400, 413)
    assert not front.served


def test_a_request_is_not_smuggled_behind_a_body(front: Front) -> None:
    hidden = head(f"GET {BUNDLE} HTTP/1.1")
    got = front.talk(head(f"POST {PULL} HTTP/1.1", f"content-length: {len(hidden)}") + hidden)
    assert status(got) == 401
    assert not front.served


def test_who_is_not_let_in_is_answered_before_the_body_is_read(front: Front) -> None:
    """A push of 5 MB with bad credentials: the answer comes though nothing of the body was sent."""
    with front.connect() as connection:
        begin = time.monotonic()
        connection.sendall(head(f"POST {PUSH} HTTP/1.1", f"content-length: {5 << 20}"))
        got = answer(connection)
        assert time.monotonic() - begin < 2
        assert status(got) == 401
        assert b"connection: close" in got.lower()
        with pytest.raises(OSError):  # noqa: PT011 - reset or broken pipe: nobody reads on
            for _ in range(5000):
                connection.sendall(bytes(1 << 16))


def test_one_site_does_not_fill_the_memory_with_bodies_that_do_not_end(front: Front) -> None:
    """Each is allowed by itself: 5 MB with good credentials."""
    with contextlib.ExitStack() as stack:
        for _ in range(12):
            connection = stack.enter_context(front.connect())
            lines = [f"{name}: {value}" for name, value in signed(front.keys["site-a"])]
            connection.sendall(head(f"POST {PUSH} HTTP/1.1", f"content-length: {5 << 20}", *lines) + bytes(1000))
        time.sleep(0.3)
        assert status(front.pull(signed(front.keys["site-a"]))) == 429
        assert front.records[0]["why"] == "Too many requests at a time."
        assert status(front.pull(signed(front.keys["site-b"]), "site-b")) == 200
    end = time.monotonic() + 5
    while status(front.pull(signed(front.keys["site-a"]))) != 200:
        assert time.monotonic() < end


def test_a_body_for_a_route_without_one_is_refused(front: Front) -> None:
    assert status(front.talk(head(f"GET {BUNDLE} HTTP/1.1", "content-length: 1") + b"x")) == 413


def test_a_body_that_ends_early_is_no_request(front: Front) -> None:
    with front.connect() as connection:
        connection.sendall(head(f"POST {ENROL} HTTP/1.1", "content-length: 10") + b"abc")
        connection.close()
    end = time.monotonic() + 5
    while not front.records and time.monotonic() < end:
        time.sleep(0.01)
    assert front.records[0]["why"] == "The request ended too early."
    assert not front.served


def test_a_peer_that_proves_nothing_may_try_so_often_and_no_more(front: Front, tmp_path: Path) -> None:
    allowed = iter([True] * 3 + [False] * 100)
    ways = front.guard()._ways
    guard = Guard(
        {path.decode(): way for path, way in ways.items()},
        front.guard()._authenticate,
        lambda peer: next(allowed),
        front.records.append,
    )
    live = tls.LiveContext(front.state.certificates())
    with Serving(guard, live, "127.0.0.1", 0) as serving:
        port, front.port = front.port, serving.port
        told = [status(front.ask(f"GET {BUNDLE} HTTP/1.1")) for _ in range(5)]
        assert status(front.pull(signed(front.keys["site-a"]))) == 200  # who is enrolled is not held up
        front.port = port
    assert told == [200, 200, 200, 429, 429]


def test_a_name_in_a_record_is_what_was_proved(front: Front) -> None:
    """The site that signed, not the node that the body names."""
    body = PullMessagesRequest(node=Node(node_id=front.room._nodes["site-b"])).SerializeToString()
    assert status(front.ask(f"POST {PULL} HTTP/1.1", signed(front.keys["site-a"]), body)) == 401
    assert front.records[0]["site"] == "site-a"
