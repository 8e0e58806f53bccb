"""uvicorn in a thread of its own, with TLS, and without patience for slow connections."""

from __future__ import annotations

import asyncio
import functools
import resource
import socket
import threading
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedser.errors import UsageError
from fedser_server.tls import LiveContext

HANDSHAKE = 10.0  # seconds
HEADERS = 10.0  # seconds from a connection, or from a request's first byte, to the end of its headers
IDLE = 30  # seconds between two requests of a connection
STALLED = 60.0  # seconds in which a reader takes nothing of an answer that waits
CONNECTIONS = 4096  # at a time


class ImpatientProtocol(H11Protocol):
    """Cuts a connection that is slow to say what it wants, or to take its answer; uvicorn waits for ever."""

    _clock: asyncio.TimerHandle | None = None
    _full: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection begins: its first request's headers are waited for."""
        super().connection_made(transport)
        self._wind()

    def data_received(self, data: bytes) -> None:
        """Something came: either a request is whole now, or the clock runs on."""
        super().data_received(data)
        if not self._between():
            self._stop()
        elif self._clock is None and not self.transport.is_closing():
            self._wind()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ends."""
        self._stop()
        self._flows()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """What is to be sent piles up: the other side does not read."""
        super().pause_writing()
        self._flows()
        self._full = asyncio.get_running_loop().call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        self._flows()
        super().resume_writing()

    def _flows(self) -> None:
        if self._full is not None:
            self._full.cancel()
            self._full = None

    def _between(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wind(self) -> None:
        self._clock = asyncio.get_running_loop().call_later(HEADERS, self._cut)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _cut(self) -> None:
        self._clock = None
        if self._between():
            self.transport.abort()


class Server(uvicorn.Server):
    """A server that gives a TLS handshake little time."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        loop = asyncio.get_running_loop()
        loop.create_server = functools.partial(  # type: ignore[method-assign]
            loop.create_server, ssl_handshake_timeout=HANDSHAKE, ssl_shutdown_timeout=HANDSHAKE
        )
        await super().startup(sockets)


class Serving:
    """A running server; a context manager.

    Args:
        app: what answers.
        certificates: looked at now and then for new ones.
        host, port: where to listen; port 0 takes a free one.
    """

    def __init__(self, app: ASGIApp, certificates: LiveContext, host: str, port: int) -> None:
        self._certificates = certificates
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=5,
        )
        config.load()
        config.ssl = certificates.context
        self._server = Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="fedser-serve", daemon=True
        )
        self._end = threading.Event()

    def __enter__(self) -> Serving:
        """Begin to answer."""
        with suppress(ValueError, OSError):
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._thread.start()
        threading.Thread(target=self._watch, name="fedser-certificates", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: running answers get a few seconds."""
        self._end.set()
        self._server.should_exit = True
        self._thread.join(10)
        if not self._thread.is_alive():  # else the server, late on a busy machine, would find its socket gone
            self._socket.close()

    @property
    def alive(self) -> bool:
        """Whether the server still runs."""
        return self._thread.is_alive()

    def _watch(self) -> None:
        while not self._end.wait(2.0):
            self._certificates.reload()


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UsageError: there is no such address here, or it is taken.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listening = socket.socket(family, kind)
    except OSError as error:
        raise UsageError(f"{host} is no address of this machine: {error}.", "Give another --host.") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{host}:{port} cannot be listened on: {reason}.", "Give another --port or --host.") from None
    return listening
