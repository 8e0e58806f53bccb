"""A TCP proxy on loopback that counts what passes: bytes on the wire without the headers of TCP and IP."""

from __future__ import annotations

import contextlib
import socket
import threading

_PIECE = 1 << 18


class CountingProxy:
    """Passes connections on to another port; a context manager.

    Args:
        target: port of loopback that connections are passed on to.

    Attributes:
        port: where it listens.
        up, down: bytes to and from the target.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.up = self.down = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def __enter__(self) -> CountingProxy:
        """Begin to listen."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut every connection."""
        for held in (self._listening, *self._open):
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listening.accept()[0]
                far = socket.create_connection(("127.0.0.1", self._target))
            except ConnectionRefusedError:
                near.close()  # the target does not listen yet
                continue
            except OSError:
                return
            self._open |= {near, far}
            for source, sink, upwards in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(source, sink, upwards), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(_PIECE):
                with self._lock:
                    self.up += len(part) if upwards else 0
                    self.down += 0 if upwards else len(part)
                sink.sendall(part)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
