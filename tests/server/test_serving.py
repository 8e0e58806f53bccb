"""The web server cuts whoever is slow: in the handshake, in the headers, in the body, between requests, in reading."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fedser_server import guard as guards
from fedser_server import serving, tls
from fedser_server.guard import Guard, Way
from fedser_server.serving import Serving
from fedser_server.state import State

from fedser.errors import EnrolmentError, UsageError

SHORT = 0.4  # seconds that stand for the node's ten
LARGE = 64 << 20
Start = Callable[[], "Door"]


class Door:
    """A listening node, and what comes of a connection to it."""

    def __init__(self, state: State, port: int, records: list[Any]) -> None:
        self.state, self.port, self.records = state, port, records

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def connect(self, **options: Any) -> ssl.SSLSocket:
        context = ssl.create_default_context(cadata=self.state.ca)
        for name, value in options.items():
            setattr(context, name, value)
        return context.wrap_socket(self.plain(), server_hostname="localhost")

    def get(self) -> bytes:
        with self.connect() as connection:
            connection.sendall(b"GET /small HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return until_the_end(connection)[0]


def until_the_end(connection: socket.socket) -> tuple[bytes, float]:
    """What comes until the other side ends the connection, and after how many seconds that is."""
    begin, got = time.monotonic(), b""
    with contextlib.suppress(OSError):
        while part := connection.recv(65536):
            got += part
    took = time.monotonic() - begin
    assert took < 9, "the connection was not cut"
    return got, took


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> State:
    return State.open(tmp_path_factory.mktemp("provider") / "state")


@pytest.fixture
def door(state: State, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    for name in ("HANDSHAKE", "HEADERS", "STALLED"):
        monkeypatch.setattr(serving, name, SHORT)
    monkeypatch.setattr(serving, "IDLE", 1)
    monkeypatch.setattr(guards, "_PIECE", SHORT)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = LARGE if scope["path"] == "/large" else 2
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(size >> 20):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b"" if size > 2 else b"ok"})

    def nobody(headers: Any) -> str:
        raise EnrolmentError("no")

    records: list[Any] = []
    ways = {"/small": Way("GET", app), "/large": Way("GET", app), "/body": Way("POST", app, 1 << 20)}
    guard = Guard(ways, nobody, lambda peer: True, records.append)
    with Serving(guard, tls.LiveContext(state.certificates()), "127.0.0.1", 0) as running:
        yield Door(state, running.port, records)


def test_a_quick_request_is_answered(door: Door) -> None:
    assert door.get().endswith(b"ok")


def test_a_handshake_that_does_not_begin_is_cut(door: Door) -> None:
    with door.plain() as connection:
        got, took = until_the_end(connection)
    assert got == b""
    assert took < 4


def test_a_handshake_that_drips_is_cut(door: Door) -> None:
    with door.plain() as connection:
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100):
                connection.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - begin < 5
    assert door.get().endswith(b"ok")


def test_no_request_after_the_handshake_is_cut(door: Door) -> None:
    with door.connect() as connection:
        assert until_the_end(connection)[1] < 4


def test_headers_that_drip_are_cut(door: Door) -> None:
    with door.connect() as connection:
        sent = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError, ValueError):
                for letter in "GET /small HTTP/1.1\r\nhost: localhost\r\n" + "x: y\r\n" * 500:
                    connection.sendall(letter.encode())
                    if sent.wait(0.02):
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        got, took = until_the_end(connection)
        sent.set()
        thread.join()
    assert got == b""
    assert SHORT / 2 < took < 4


def test_the_clock_runs_for_the_second_request_too(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /small HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(4096)
        connection.sendall(b"GET /small HTT")
        assert until_the_end(connection)[1] < 4


def test_headers_without_end_are_refused(door: Door) -> None:
    with door.connect() as connection:
        with contextlib.suppress(OSError):
            connection.sendall(b"GET /small HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * (1 << 20))
        got, _ = until_the_end(connection)
    assert got == b"" or b" 400 " in got


def test_a_body_that_stops_is_cut_and_recorded(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"POST /body HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc")
        got, took = until_the_end(connection)
    assert b" 408 " in got
    assert took < 4
    assert door.records[0]["why"] == "The request took too long."


def test_a_body_that_drips_is_cut(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece comes in time, and all of them together do not."""
    monkeypatch.setattr(guards, "_SLOWEST", 10 << 20)
    with door.connect() as connection:
        connection.sendall(b"POST /body HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n")
        begin = time.monotonic()
        with contextlib.suppress(OSError):
            for _ in range(200):
                connection.sendall(b"a")
                time.sleep(0.03)
        assert time.monotonic() - begin < 4
    assert door.records[0]["why"] == "The request took too long."


def test_an_idle_connection_is_cut(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /small HTTP/1.1\r\nhost: localhost\r\n\r\n")
        got, took = until_the_end(connection)
    assert got.endswith(b"ok")
    assert took < 4


def test_a_reader_that_does_not_read_is_cut(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        time.sleep(5 * SHORT)
        got, _ = until_the_end(connection)
    assert len(got) < LARGE
    assert door.get().endswith(b"ok")


def test_a_slow_reader_that_reads_gets_everything(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        total = 0
        while part := connection.recv(1 << 20):
            total += len(part)
            if total % 50 == 0:
                time.sleep(0.001)
    assert total > LARGE


NO_HTTP = {
    "plaintext": b"GET /small HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": bytes(1000),
    "an old handshake": bytes.fromhex("80 2e 01 00 02 00 15 00 00 00 10") + bytes(37),
}


@pytest.mark.parametrize("name", NO_HTTP)
def test_what_is_no_tls_gets_no_answer_of_http(door: Door, name: str) -> None:
    with door.plain() as connection:
        connection.sendall(NO_HTTP[name])
        got, _ = until_the_end(connection)
    assert b"HTTP/" not in got
    assert door.get().endswith(b"ok")


def test_older_versions_of_tls_are_refused(door: Door) -> None:
    with pytest.raises(ssl.SSLError):
        door.connect(maximum_version=ssl.TLSVersion.TLSv1_2)


def test_a_stranger_does_not_pass_for_the_node(door: Door, tmp_path: Path) -> None:
    other = State.open(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        Door(other, door.port, []).connect()


IN_TLS = {
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b" 4"),
    "HTTP/0.9": (b"GET /small\r\n\r\n", b" 400 "),
    "HTTP/3.0": (b"GET /small HTTP/3.0\r\nhost: a\r\n\r\n", b"HTTP/1.1 "),
    "no host": (b"GET /small HTTP/1.1\r\n\r\n", b" 400 "),
    "two hosts": (b"GET /small HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", b" 400 "),
    "two lengths": (b"POST /body HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", b" 4"),
    "a folded header": (b"GET /small HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", b" "),
    "a null byte in a header": (b"GET /small HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", b" 400 "),
    "a body in another encoding": (b"POST /body HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", b" "),
    "binary": (bytes(range(256)), b" 400 "),
}


@pytest.mark.parametrize("name", IN_TLS)
def test_odd_requests_get_an_error_or_nothing(door: Door, name: str) -> None:
    request, expected = IN_TLS[name]
    with door.connect() as connection:
        connection.sendall(request)
        got, _ = until_the_end(connection)
    assert got == b"" or expected in got.split(b"\r\n")[0]
    assert door.get().endswith(b"ok")


@pytest.mark.parametrize("kind", [b"websocket", b"h2c"])
def test_upgrades_are_not_made(door: Door, kind: bytes) -> None:
    with door.connect() as connection:
        connection.sendall(
            b"GET /small HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: " + kind + b"\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        got, _ = until_the_end(connection)
    assert b" 101 " not in got


def test_many_silent_connections_keep_nobody_out(door: Door) -> None:
    idle = [door.plain() for _ in range(100)]
    try:
        assert door.get().endswith(b"ok")
    finally:
        for connection in idle:
            connection.close()


def test_a_certificate_is_exchanged_while_the_node_runs(door: Door, state: State) -> None:
    def serial() -> bytes | None:
        with door.connect() as connection:
            return connection.getpeercert(binary_form=True)

    before = serial()
    state.renew_certificate()
    end = time.monotonic() + 8
    while serial() == before and time.monotonic() < end:
        time.sleep(0.1)
    assert serial() != before


def test_a_port_that_is_taken_and_a_host_that_is_not_here(door: Door, state: State) -> None:
    live = tls.LiveContext(state.certificates())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    with pytest.raises(UsageError, match="cannot be listened on"):
        Serving(app, live, "127.0.0.1", door.port)
    with pytest.raises(UsageError, match="no address"):
        Serving(app, live, "no.such.host.invalid", 0)
    with pytest.raises(UsageError, match="cannot be listened on"):
        Serving(app, live, "192.0.2.1", 0)


def test_a_node_that_stops_frees_its_port(state: State) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    live = tls.LiveContext(state.certificates())
    with Serving(app, live, "127.0.0.1", 0) as running:
        port = running.port
        while not running._server.started:
            time.sleep(0.01)
    assert not running.alive
    with Serving(app, live, "127.0.0.1", port) as again:
        assert again.port == port
