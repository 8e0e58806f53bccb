"""The bundle's way to the site: resumed, verified before it is parsed, never half-written."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fedser_client import fetch as fetching
from fedser_client.fetch import fetch, stored
from fedser_client.http import Routes
from fedser_client.patience import Patience
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response, StreamingResponse

from fedser import bundle as bundles
from fedser.bundle import keys
from fedser.errors import ConfigError, EnrolmentError, NetworkError, RollbackError, SignatureError, StateError
from fedser.federation.trust import vouch


def empty(folder: Any) -> bool:
    """Nothing that could be taken for a bundle lies in the state folder."""
    return not folder.file("bundle.safetensors").exists() and not list(folder.file("incoming").glob("*"))


def test_a_bundle_comes_whole_and_is_not_fetched_twice(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    desk.rounds = 7
    published = fetch(routes, folder, settings)
    assert published.rounds == 7
    assert folder.file("bundle.safetensors").read_bytes() == desk.path.read_bytes()
    assert published.bundle.digest == keys.digest(desk.path.read_bytes())
    assert folder.file("bundle.safetensors").stat().st_mode & 0o777 == 0o600
    before = folder.file("bundle.safetensors").stat().st_mtime_ns
    assert fetch(routes, folder, settings).bundle.digest == published.bundle.digest
    assert folder.file("bundle.safetensors").stat().st_mtime_ns == before
    assert stored(folder, settings).digest == published.bundle.digest


def test_a_cut_transfer_goes_on_where_it_stopped(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    whole = desk.path.read_bytes()

    async def cut(request: Request) -> Response:
        if "range" in request.headers:
            return FileResponse(desk.path, headers=desk.headers())

        async def half() -> AsyncIterator[bytes]:
            yield whole[: len(whole) // 2]

        return StreamingResponse(half(), headers={**desk.headers(), "content-length": str(len(whole))})

    desk.bundle = cut
    fetch(routes, folder, settings)
    asked = [headers for _, _, headers, _ in desk.asked(fetching.PATH)]
    assert len(asked) == 2
    assert asked[1]["range"] == f"bytes={len(whole) // 2}-"
    assert asked[1]["if-range"] == f'"{keys.digest(whole)}"'
    assert folder.file("bundle.safetensors").read_bytes() == whole


def test_a_stored_bundle_is_asked_after_and_not_sent_again(
    desk: Any, routes: Routes, folder: Any, settings: Any
) -> None:
    published = fetch(routes, folder, settings)
    folder.file("state.safetensors").touch()
    folder.file("incoming").mkdir()
    (folder.file("incoming") / f"{published.bundle.digest}.part").touch()  # what a crash may leave

    async def unchanged(request: Request) -> Response:
        assert request.headers["if-none-match"] == f'"{published.bundle.digest}"'
        return Response(status_code=304, headers=desk.headers())

    desk.bundle = unchanged
    assert fetch(routes, folder, settings).bundle.digest == published.bundle.digest

    async def lies(request: Request) -> Response:
        return Response(status_code=304, headers={**desk.headers(), "fedser-digest": "0" * 64})

    desk.bundle = lies
    with pytest.raises(NetworkError, match="another part"):
        fetch(routes, folder, settings)


def test_what_lies_there_of_another_bundle_is_not_stitched_to_this_one(
    desk: Any, routes: Routes, folder: Any, settings: Any
) -> None:
    folder.file("incoming").mkdir()
    (folder.file("incoming") / f"{'0' * 64}.part").write_bytes(b"an older one")
    fetch(routes, folder, settings)
    assert folder.file("bundle.safetensors").read_bytes() == desk.path.read_bytes()
    assert not list(folder.file("incoming").glob("*"))


def test_a_part_with_wrong_bytes_is_fetched_anew(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    folder.file("incoming").mkdir()
    part = folder.file("incoming") / f"{keys.digest(desk.path.read_bytes())}.part"
    part.write_bytes(b"x" * 1000)
    fetch(routes, folder, settings)
    assert folder.file("bundle.safetensors").read_bytes() == desk.path.read_bytes()


def test_another_digest_is_refused_before_parsing(
    desk: Any, routes: Routes, folder: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles.format, "parse", lambda data: pytest.fail("parsed before it was verified"))

    async def other(request: Request) -> Response:
        return Response(desk.path.read_bytes() + b"x", headers=desk.headers())

    desk.bundle = other
    with pytest.raises(SignatureError):
        fetch(routes, folder, settings)
    assert empty(folder)


def test_another_signer_is_refused_before_parsing(
    desk: Any, routes: Routes, folder: Any, settings: Any, order_key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles.format, "parse", lambda data: pytest.fail("parsed before it was verified"))
    desk.signature = order_key.sign(desk.path.read_bytes()).hex()
    with pytest.raises(SignatureError):
        fetch(routes, folder, settings)
    assert empty(folder)


def test_a_signer_that_the_order_key_vouches_for_is_kept_to(
    desk: Any, routes: Routes, folder: Any, settings: Any, order_key: Any, signed: Any
) -> None:
    open_one = folder.remember(settings.model_copy(update={"bundle_key": None}))
    with pytest.raises(NetworkError, match="names no signer"):
        fetch(routes, folder, open_one)
    stranger = keys.create(folder.file("stranger"))
    desk.signer = signed.signer
    for false in ("", "00" * 64, vouch(stranger, "study", signed.signer), vouch(order_key, "other", signed.signer)):
        desk.vouch = false
        with pytest.raises(SignatureError):
            fetch(routes, folder, open_one)
        assert not folder.file("bundle.safetensors").exists()
    desk.vouch = vouch(order_key, "study", signed.signer)
    assert fetch(routes, folder, open_one).bundle.header.signer == signed.signer
    assert folder.settings().bundle_key == signed.signer
    # Another signer, though vouched for as well, is too late.
    desk.signer, desk.vouch = stranger.public_hex, vouch(order_key, "study", stranger.public_hex)
    desk.signature = stranger.sign(desk.path.read_bytes()).hex()
    folder.file("bundle.safetensors").unlink()
    with pytest.raises(SignatureError):
        fetch(routes, folder, folder.settings())


def test_an_older_version_and_another_name_are_refused(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    with pytest.raises(RollbackError):
        fetch(routes, folder, settings.model_copy(update={"bundle_name": "tiny", "bundle_version": 99}))
    assert empty(folder)
    with pytest.raises(RollbackError):
        fetch(routes, folder, settings.model_copy(update={"bundle_name": "other"}))
    assert empty(folder)


def test_another_bundle_in_the_middle_of_the_rounds_is_refused(
    desk: Any, routes: Routes, folder: Any, settings: Any
) -> None:
    folder.file("state.safetensors").touch()
    with pytest.raises(StateError):
        fetch(routes, folder, settings)


def test_the_packaged_bundle_is_verified_with_the_packaged_key(
    desk: Any, routes: Routes, folder: Any, settings: Any
) -> None:
    desk.path = bundles.format.default_path()
    desk.signature = bundles.format.signature_path(desk.path).read_text().strip()
    assert fetch(routes, folder, settings).bundle.header.signer == bundles.format.default_signer()


async def redirected(request: Request) -> Response:
    return RedirectResponse("https://127.0.0.1:1/elsewhere")


def test_a_redirect_is_refused(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    desk.bundle = redirected
    with pytest.raises(NetworkError, match="elsewhere"):
        fetch(routes, folder, settings)
    assert empty(folder)


def test_an_endless_body_is_refused(
    desk: Any, routes: Routes, folder: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 200_000)
    sent = 0

    async def endless(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < 100_000_000:
                sent += 10_000
                yield b"\0" * 10_000

        return StreamingResponse(body(), headers=desk.headers())

    desk.bundle = endless
    with pytest.raises(NetworkError, match="larger"):
        fetch(routes, folder, settings)
    assert sent < 100_000_000
    assert empty(folder)


def test_a_declared_length_beyond_the_limit_is_refused_unread(
    desk: Any, routes: Routes, folder: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 1000)
    with pytest.raises(NetworkError, match="larger"):
        fetch(routes, folder, settings)
    assert empty(folder)


@pytest.mark.parametrize("path", ["bundle", "trust"])
def test_a_compressed_answer_is_refused_and_never_inflated(desk: Any, routes: Routes, path: str) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)

    async def bombs(request: Request) -> Response:
        return Response(bomb, headers={**desk.headers(), "content-encoding": "gzip"})

    desk.bundle = bombs
    if path == "trust":
        with pytest.raises(NetworkError, match="larger"):  # bytes as they came are counted, whatever they are
            desk.chain = "x" * 100_000
            routes.get("/v1/fedser/trust", 50_000)
        return
    with pytest.raises(NetworkError, match="compressed"):
        routes.get("/v1/fedser/bundle", 10**9)


@pytest.mark.parametrize(("protocol", "error"), [("2", EnrolmentError), ("", NetworkError), ("1 or 2", NetworkError)])
def test_another_protocol_is_refused(
    desk: Any, routes: Routes, folder: Any, settings: Any, protocol: str, error: type[Exception]
) -> None:
    desk.protocol = protocol
    with pytest.raises(error):
        fetch(routes, folder, settings)


def test_a_busy_provider_is_asked_again(desk: Any, routes: Routes, folder: Any, settings: Any) -> None:
    async def busy(request: Request) -> Response:
        desk.bundle = None
        return Response(status_code=503)

    desk.bundle = busy
    assert fetch(routes, folder, settings).bundle.header.name == "tiny"


def quick(address: str, authority: Any) -> Routes:
    return Routes(address, [authority.pem], None, Patience(0.0))


def test_a_certificate_of_another_authority_is_refused_at_once(desk: Any, authority: Any) -> None:
    with quick(desk.address, type(authority)()) as stranger, pytest.raises(NetworkError, match="pinned"):
        stranger.get("/v1/fedser/trust", 1000)
    assert desk.seen == []


@pytest.mark.parametrize(
    ("host", "start", "end", "words"),
    [
        ("127.0.0.1", -9, -1, "has expired"),
        ("127.0.0.1", 1, 9, "is not valid yet"),
        ("other.example", -1, 9, "another"),
    ],
)
def test_a_certificate_out_of_time_or_place_is_told_as_such(
    desk: Any, authority: Any, running: Any, tmp_path: Path, host: str, start: int, end: int, words: str
) -> None:
    with (
        running(desk.app(), *authority.issue(tmp_path / "tls", host, start, end)) as address,
        quick(address, authority) as routes,
        pytest.raises(NetworkError, match=words) as caught,
    ):
        routes.get("/v1/fedser/trust", 1000)
    assert ("clock" in caught.value.hint) == (host == "127.0.0.1")


def test_plain_http_is_refused_at_once(desk: Any, authority: Any, running: Any) -> None:
    with (
        running(desk.app(), None, None) as address,
        quick(address, authority) as routes,
        pytest.raises(NetworkError, match=r"TLS 1\.3"),
    ):
        routes.get("/v1/fedser/trust", 1000)


def test_an_older_tls_is_refused_at_once(authority: Any, certificate: Any) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(*certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    def serve(listener: socket.socket) -> None:
        with listener, suppress(OSError), old.wrap_socket(listener.accept()[0], server_side=True):
            pass

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    with (
        quick(f"127.0.0.1:{listener.getsockname()[1]}", authority) as routes,
        pytest.raises(NetworkError, match=r"TLS 1\.3"),
    ):
        routes.get("/v1/fedser/trust", 1000)
    thread.join(10)


def test_a_proxy_carries_the_connection_and_sees_no_more_than_the_address(desk: Any, authority: Any) -> None:
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        with listener, listener.accept()[0] as caller:
            heard.append(caller.recv(4096))
            host, _, port = desk.address.partition(":")
            with socket.create_connection((host, int(port))) as far:
                caller.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                pumps = [threading.Thread(target=pump, args=pair) for pair in ((caller, far), (far, caller))]
                for thread in pumps:
                    thread.start()
                for thread in pumps:
                    thread.join(10)

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                heard.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    desk.chain = "a chain of renewals"
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=serve, args=(listener,))
    thread.start()
    with Routes(desk.address, [authority.pem], proxy, Patience(0.0)) as routes:
        assert routes.get("/v1/fedser/trust", 1000).body == b"a chain of renewals"
    thread.join(10)
    assert heard[0].startswith(f"CONNECT {desk.address} ".encode())
    assert b"renewals" not in b"".join(heard)


@pytest.mark.parametrize("proxy", ["ftp://x:1", "nonsense", "http://"])
def test_a_proxy_that_is_none_is_refused(authority: Any, proxy: str) -> None:
    with pytest.raises(ConfigError):
        Routes("127.0.0.1:1", [authority.pem], proxy, Patience(0.0))


def test_an_absent_provider_is_waited_for_as_long_as_asked(authority: Any) -> None:
    paused: list[float] = []
    now = 0.0

    def sleep(pause: float) -> None:
        nonlocal now
        now += pause
        paused.append(pause)

    patience = Patience(200.0, sleep=sleep, clock=lambda: now)
    with Routes("127.0.0.1:1", [authority.pem], None, patience) as routes, pytest.raises(NetworkError, match="reached"):
        routes.get("/v1/fedser/trust", 1000)
    assert now <= 200
    assert all(0.5 <= pause <= 30 for pause in paused)
    assert max(paused) > 15  # the back-off reached its longest
    assert paused[0] <= 1
