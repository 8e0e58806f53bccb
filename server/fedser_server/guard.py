"""The gatekeeper of every route: what is not on its list is 404, and nothing is read that need not be.

Paths are compared undecoded, byte for byte, so that no way of writing a path leads around the list. A fleet
request proves who sends it before its body is read. Bodies are bounded by their declared length, by counting,
and in time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedser.errors import EnrolmentError

_PIECE = 10.0  # seconds for each piece of a body
_SLOWEST = 32_768  # bytes a second, beside ``_PIECE``, that a body must at least arrive at
_AT_ONCE = 12  # bodies of one site that are read at a time; a site sends four, and may have been restarted

Authenticate = Callable[[list[tuple[bytes, bytes]]], str]


@dataclass(frozen=True)
class Way:
    """One path that is served.

    Attributes:
        method: the one that it takes.
        app: what answers.
        largest: bytes of a body; 0 for none.
        signed: whether the sender must be an enrolled site.
    """

    method: str
    app: ASGIApp
    largest: int = 0
    signed: bool = False


class Guard:
    """An ASGI application over a list of ways.

    Args:
        ways: by path.
        authenticate: the name of the site that sent these raw headers; EnrolmentError otherwise.
        allow: whether an address may make one more request that proves nothing.
        record: called with each refusal.
    """

    def __init__(
        self,
        ways: Mapping[str, Way],
        authenticate: Authenticate,
        allow: Callable[[str], bool],
        record: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._ways = {path.encode("ascii"): way for path, way in ways.items()}
        self._authenticate = authenticate
        self._allow = allow
        self._record = record
        self._reading: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        peer = scope["client"][0] if scope.get("client") else "unknown"
        way = self._ways.get(scope["raw_path"])
        if way is None or scope["query_string"] or scope["method"] not in _methods(way):
            await _answer(send, 404, "There is nothing here.")
            return
        length = _length(scope)
        if length is None or length > way.largest:
            self._record({"event": "refused", "peer": peer, "route": _path(scope), "why": "too large"})
            await _answer(send, 413, "The request is too large.")
            return
        if way.signed:
            try:
                site = self._authenticate(scope["headers"])
            except EnrolmentError as error:
                if self._allow(peer):
                    self._record({"event": "refused", "peer": peer, "route": _path(scope), "why": str(error)})
                await _answer(send, 401, str(error))
                return
            scope.setdefault("state", {})["site"] = site
        elif self._allow(peer):
            site = ""
        else:
            await _answer(send, 429, "Too many requests.")
            return
        try:
            body = await self._read(site, receive, way.largest)
        except _NoBodyError as error:
            self._record({"event": "refused", "peer": peer, "route": _path(scope), "why": str(error)})
            await _answer(send, error.status, str(error))
            return
        await way.app(scope, _given(body, receive), send)

    async def _read(self, site: str, receive: Receive, largest: int) -> bytes:
        """A request's body; of one site so many at a time, so that none of them fills the memory."""
        if site and self._reading[site] >= _AT_ONCE:
            raise _NoBodyError(429, "Too many requests at a time.")
        self._reading[site] += 1
        try:
            return await _body(receive, largest)
        finally:
            self._reading[site] -= 1


class _NoBodyError(Exception):
    """A body that is too large, takes too long, or ends too early."""

    def __init__(self, status: int, what: str) -> None:
        super().__init__(what)
        self.status = status


async def _body(receive: Receive, largest: int) -> bytes:
    """A request's body, bounded in bytes and seconds."""
    end = time.monotonic() + _PIECE + largest / _SLOWEST
    parts: list[bytes] = []
    left, more = largest, True
    while more:
        wait = min(_PIECE, end - time.monotonic())
        try:
            message = await asyncio.wait_for(receive(), max(wait, 0.0))
        except TimeoutError:
            raise _NoBodyError(408, "The request took too long.") from None
        if message["type"] != "http.request":
            raise _NoBodyError(400, "The request ended too early.")
        parts.append(message.get("body", b""))
        left -= len(parts[-1])
        if left < 0:
            raise _NoBodyError(413, "The request is too large.")
        more = message.get("more_body", False)
    return b"".join(parts)


def _given(body: bytes, receive: Receive) -> Receive:
    """A receive that gives a body that is there already, and then goes on."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return waiting.pop() if waiting else await receive()

    return given


def _methods(way: Way) -> tuple[str, ...]:
    return ("GET", "HEAD") if way.method == "GET" else (way.method,)


def _length(scope: Scope) -> int | None:
    """The declared length of a body: 0 where none is declared, None where it is no number."""
    values = [value for name, value in scope["headers"] if name == b"content-length"]
    if not values:
        return 0
    if len(values) > 1 or not values[0].isdigit() or len(values[0]) > 15:
        return None
    return int(values[0])


def _path(scope: Scope) -> str:
    path: bytes = scope["raw_path"]
    return path.decode("ascii", "replace")


async def _answer(send: Send, status: int, what: str) -> None:
    """A short answer after which the connection ends: what is left of a body is not waited for."""
    body = json.dumps({"detail": what}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
