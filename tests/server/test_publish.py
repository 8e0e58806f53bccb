"""The provider's own routes over real TLS: the bundle as its owner signed it, the chain, enrolment."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_server import enrolment as route
from fedser_server import publish, tls
from fedser_server.state import State
from starlette.applications import Starlette
from starlette.routing import Route

from fedser.bundle import keys
from fedser.bundle.keys import SigningKey
from fedser.errors import BundleFormatError, SignatureError
from fedser.federation import enrolment, trust

CONTENT = bytes(range(256)) * 3000  # the node never looks into a bundle: any signed bytes will do


@dataclass
class Node:
    """A running node's own routes, and what it recorded."""

    state: State
    port: int
    records: list[dict[str, Any]]

    def client(self) -> httpx.Client:
        context = ssl.create_default_context(cadata=self.state.ca)
        return httpx.Client(base_url=f"https://localhost:{self.port}", verify=context, trust_env=False)


@contextmanager
def served(state: State, routes: list[Route]) -> Iterator[int]:
    live = tls.LiveContext(state.certificates())
    settings: dict[str, Any] = {"log_level": "critical", "lifespan": "off", "ws": "none"}
    config = uvicorn.Config(Starlette(routes=routes), ssl_context_factory=lambda *_: live.context, **settings)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def owner() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, owner: SigningKey) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "source.safetensors"
    path.write_bytes(CONTENT)
    path.with_name(path.name + ".sig").write_text(owner.sign(CONTENT).hex() + "\n")
    return path


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Node]:
    state = State.open(tmp_path_factory.mktemp("node") / "provider", study="trial")
    records: list[dict[str, Any]] = []
    with served(state, publish.routes(state, bundle, 3, records.append)) as port:
        yield Node(state, port, records)


def test_the_bundle_is_the_owners_byte_for_byte(node: Node, owner: SigningKey) -> None:
    with node.client() as client:
        answer = client.get(publish.BUNDLE, headers={"accept-encoding": "identity"})
    assert answer.status_code == 200
    assert answer.content == CONTENT
    assert answer.headers["fedser-digest"] == hashlib.sha256(CONTENT).hexdigest()
    assert answer.headers["etag"] == f'"{hashlib.sha256(CONTENT).hexdigest()}"'
    assert (answer.headers["fedser-protocol"], answer.headers["fedser-rounds"]) == ("1", "3")
    keys.verify(owner.public_hex, answer.content, bytes.fromhex(answer.headers["fedser-signature"]))
    assert answer.headers["fedser-signature"] == owner.sign(CONTENT).hex()  # Ed25519 is deterministic
    with pytest.raises(SignatureError):
        keys.verify(node.state.order_key.public_hex, CONTENT, bytes.fromhex(answer.headers["fedser-signature"]))


def test_head_tells_everything_but_the_content(node: Node) -> None:
    with node.client() as client:
        answer = client.head(publish.BUNDLE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert len(answer.headers["fedser-signature"]) == 128


def test_a_download_goes_on_where_it_stopped(node: Node) -> None:
    whole = hashlib.sha256(CONTENT).hexdigest()
    with node.client() as client:
        start = client.get(publish.BUNDLE, headers={"range": "bytes=0-99999"})
        rest = client.get(publish.BUNDLE, headers={"range": "bytes=100000-", "if-range": f'"{whole}"'})
        other = client.get(publish.BUNDLE, headers={"range": "bytes=100000-", "if-range": '"another"'})
    assert (start.status_code, rest.status_code, other.status_code) == (206, 206, 200)
    assert rest.headers["content-range"] == f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert start.content + rest.content == other.content == CONTENT


def test_odd_ranges_do_no_harm(node: Node) -> None:
    asked = {
        "bytes=99999999-": 416,
        "bytes=5-2": 400,
        "apples=1-2": 400,
        "bytes=0-0," + ",".join(f"{k}-{k}" for k in range(2, 4000, 2)): 200,
    }
    with node.client() as client:
        for header, status in asked.items():
            assert client.get(publish.BUNDLE, headers={"range": header}).status_code == status
        same = client.get(publish.BUNDLE, headers={"if-none-match": f'"{hashlib.sha256(CONTENT).hexdigest()}"'})
    assert (same.status_code, same.content) == (304, b"")


def test_only_reading_is_open(node: Node) -> None:
    with node.client() as client:
        for path in (publish.BUNDLE, publish.TRUST):
            for method in ("POST", "PUT", "DELETE", "PATCH"):
                assert client.request(method, path).status_code == 405
        assert client.get(route.PATH).status_code == 405
        assert client.get("/v1/fedser/").status_code == 404
        assert client.get("/v1/fedser/bundle/../../study.json").status_code == 404


def test_the_chain_of_renewals_is_open_and_fresh(node: Node) -> None:
    pinned, ca = node.state.order_key.public_hex, node.state.ca
    with node.client() as client:
        assert client.get(publish.TRUST).text == ""
        key = State.open(node.state.folder).renew_order_key()
        lines = client.get(publish.TRUST).text.splitlines()
    assert trust.walk(pinned, lines, ca=ca).order_key == key


def test_a_site_enrols_over_tls(node: Node) -> None:
    token = node.state.roster.invite("site-a", 60)
    keys_made = ec.generate_private_key(ec.SECP384R1()), SigningKey(Ed25519PrivateKey.generate())
    made = enrolment.request("trial", "site-a", token, *keys_made)
    with node.client() as client:
        assert client.post(route.PATH, json=made.model_dump()).json()["site"] == "site-a"
        assert client.post(route.PATH, content=b"x" * 100_000).status_code in (413, 429)
    assert node.records[0] == {"event": "enrolled", "site": "site-a", "peer": "127.0.0.1"}
    assert node.state.roster.entries()["site-a"].status == "enrolled"


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    state = State.open(tmp_path / "provider", study="trial")
    records: list[dict[str, Any]] = []
    handler = route.Enrolment(state, records.append, patience=0.3)
    with served(state, [Route(route.PATH, handler.enrol, methods=["POST"])]) as port:
        context = ssl.create_default_context(cadata=state.ca)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(f"POST {route.PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{{".encode())
            start = time.monotonic()
            answer = connection.recv(10_000)
            assert time.monotonic() - start < 3
    assert b" 408 " in answer.splitlines()[0]
    assert records[0]["why"] == "malformed"


def test_publishing_only_enrols_nobody(tmp_path: Path, bundle: Path) -> None:
    state = State.open(tmp_path / "provider", study="trial")
    with (
        served(state, publish.routes(state, bundle, 0, lambda _: None)) as port,
        Node(state, port, []).client() as client,
    ):
        assert client.get(publish.BUNDLE).headers["fedser-rounds"] == "0"
        assert client.post(route.PATH, json={}).status_code == 404


def test_a_bundle_that_is_replaced_meanwhile_changes_nothing(tmp_path: Path, owner: SigningKey) -> None:
    state = State.open(tmp_path / "provider", study="trial")
    path = tmp_path / "b.safetensors"
    signature = path.with_name(path.name + ".sig")
    path.write_bytes(b"first")
    signature.write_text(owner.sign(b"first").hex())
    first = publish.take(state, path, 1)
    path.write_bytes(b"second")
    assert first.path.read_bytes() == b"first"
    signature.write_text(owner.sign(b"second").hex())
    second = publish.take(state, path, 1)
    assert second.path.read_bytes() == b"second"
    assert [file.name for file in second.path.parent.iterdir()] == [second.path.name]
    second.path.write_bytes(b"damaged")
    assert publish.take(state, path, 1).path.read_bytes() == b"second"


def test_without_bundle_or_signature_there_is_nothing_to_publish(tmp_path: Path) -> None:
    state = State.open(tmp_path / "provider")
    path = tmp_path / "b.safetensors"
    path.write_bytes(b"x")
    for text in (None, "", "zz" * 64, "ab" * 63):
        if text is not None:
            path.with_name(path.name + ".sig").write_text(text)
        with pytest.raises(SignatureError):
            publish.take(state, path, 1)
    path.with_name(path.name + ".sig").write_text("ab" * 64)
    path.unlink()
    with pytest.raises(BundleFormatError):
        publish.take(state, path, 1)
    assert json.loads((state.folder / "sites.json").read_text())["sites"] == []
