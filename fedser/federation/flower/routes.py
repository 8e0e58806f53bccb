"""Flower's fleet routes, with the binding between its authentication and its handlers.

Flower's router, error translator, protobuf middleware and node authentication run unchanged. The rounds and the
routes share the process, so a poll for mail can be held until there is some.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint

from fedser.federation.flower.binding import NotAllowedError
from fedser.federation.flower.mailroom import Mailroom

PREFIX = "/v1/fleet/"
#: What a site needs. Not served: register, unregister, get-run, get-fab.
ROUTES = (
    "activate-node",
    "deactivate-node",
    "send-node-heartbeat",
    "pull-messages",
    "pull-object",
    "confirm-message-received",
    "push-messages",
    "push-object",
)
_TURN = 10.0  # seconds for which a site waits for its turn to send before it must ask again


class Routes:
    """The fleet routes over a mailroom.

    Args:
        mailroom: whose mail they carry.
        hold: seconds for which a poll without mail is held; 0 where a proxy forbids it.
        intake: bytes of replies that may lie in memory at a time; at least one reply is taken.
        record: called with each refused request.

    Attributes:
        app: the ASGI application.
    """

    def __init__(
        self,
        mailroom: Mailroom,
        *,
        hold: float = 15.0,
        intake: int = 512 * 2**20,
        record: Callable[[Mapping[str, Any]], None] = lambda event: None,
    ) -> None:
        self._room = mailroom
        self._hold = hold
        self._most = max(1, intake // max(mailroom.largest, 1))
        self._record = record
        self._bells: dict[int, asyncio.Event] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        mailroom.ring = self._ring
        self.app = FastAPI(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            middleware=[
                Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
                Middleware(ProtobufTranslationMiddleware),
                Middleware(BaseHTTPMiddleware, dispatch=self._witness),
                Middleware(NodeAuthMiddleware),
                Middleware(BaseHTTPMiddleware, dispatch=self._bind),
            ],
        )
        self.app.state.linkstate_factory = mailroom.factory
        self.app.state.enable_supernode_auth = True
        wanted = {PREFIX + name for name in ROUTES}
        self.app.router.routes.extend(r for r in fleet_router.routes if getattr(r, "path", "") in wanted)

    async def _witness(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Record whom Flower's node authentication turns away: a site that speaks in another's name."""
        try:
            return await call_next(request)
        except HTTPException as error:
            if error.status_code == 401:
                site = request.scope.get("state", {}).get("site", "unknown")
                self._record({"event": "refused", "site": site, "route": request.url.path, "why": error.detail})
            raise

    async def _bind(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Hold an authenticated request against its sender's mail."""
        message = getattr(request.state, "protobuf_request", None)
        if message is None:
            return await call_next(request)
        if isinstance(message, ActivateNodeRequest):
            if not self._room.returned(message.public_key):
                raise HTTPException(401, "unknown node")
            return await call_next(request)
        node = message.node.node_id if hasattr(message, "node") else getattr(message, "node_id", 0)
        site = self._room.site_of(node)
        if site is None:
            raise HTTPException(401, "unknown node")
        self._room.hear(node)
        try:
            if isinstance(message, PushMessagesRequest):
                await self._turn(node)
            elif isinstance(message, PullMessagesRequest):
                await self._mail(node)
            self._room.binding.before(node, message)
        except NotAllowedError as error:
            self._record({"event": "refused", "site": site, "route": request.url.path, "why": str(error)})
            raise HTTPException(403, str(error)) from None
        response = await call_next(request)
        answer = getattr(request.state, "protobuf_response", None)
        if answer is not None:
            mail = self._room.binding.after(node, message, answer)
            if mail is not None and not self._room.take_in(mail):
                raise HTTPException(409, "the reply was not stored")
        return response

    async def _mail(self, node: int) -> None:
        """Wait until there is mail for a node, for as long as a poll is held."""
        self._loop = asyncio.get_running_loop()
        bell = self._bells.setdefault(node, asyncio.Event())
        end = time.monotonic() + self._hold
        while not self._room.closed.is_set() and not self._room.binding.has_mail(node):
            left = end - time.monotonic()
            if left <= 0:
                break
            bell.clear()
            try:
                await asyncio.wait_for(bell.wait(), min(left, 1.0))
            except TimeoutError:
                continue
        if self._room.closed.is_set():
            raise HTTPException(503, "the provider stops", headers={"retry-after": "5"})
        with self._room.binding.lock:
            mail = self._room.binding.open.get(node)
            if mail is not None and mail.delivered and self._room.binding.has_mail(node):
                self._room.lay(mail)  # it asks again: it lost its order

    async def _turn(self, node: int) -> None:
        """Wait until a reply may be received: few lie in memory at a time."""
        end = time.monotonic() + _TURN
        binding = self._room.binding
        mail = binding.open.get(node)
        while mail is not None and not mail.reply and binding.intake() >= self._most:
            if time.monotonic() > end or self._room.closed.is_set():
                raise HTTPException(503, "other sites are sending", headers={"retry-after": "1"})
            await asyncio.sleep(0.05)

    def _ring(self, node: int) -> None:
        """Wake a held poll, from any thread."""
        loop, bell = self._loop, self._bells.get(node)
        if loop is not None and bell is not None and not loop.is_closed():
            loop.call_soon_threadsafe(bell.set)
