"""Flower's fleet routes, with the binding between its authentication and its handlers.

Flower's protobuf checks, node authentication, handlers and error translator run unchanged, one after the other in one
ASGI application: its own stack of middlewares around a router costs several times what the handlers do. The rounds and
the routes share the process, so a poll for mail can be held until there is some.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

from fastapi import HTTPException, Request, Response
from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2
from flwr.supercore.error import http_error_translator
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers as handlers
from google.protobuf.message import Message as Protobuf
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from fedser.federation.flower.binding import NotAllowedError
from fedser.federation.flower.mailroom import Mailroom

PREFIX = "/v1/fleet/"
#: What a site needs: the request's type, Flower's handler, and what beside the state it takes. Not served: register,
#: unregister, get-run, get-fab.
_CALLS: Mapping[str, tuple[type[Protobuf], Callable[..., Protobuf], tuple[str, ...]]] = {
    "activate-node": (fleet_pb2.ActivateNodeRequest, handlers.activate_node, ()),
    "deactivate-node": (fleet_pb2.DeactivateNodeRequest, handlers.deactivate_node, ()),
    "send-node-heartbeat": (heartbeat_pb2.SendNodeHeartbeatRequest, handlers.send_node_heartbeat, ()),
    "pull-messages": (fleet_pb2.PullMessagesRequest, handlers.pull_messages, ("store",)),
    "pull-object": (message_pb2.PullObjectRequest, handlers.pull_object, ()),
    "confirm-message-received": (
        message_pb2.ConfirmMessageReceivedRequest,
        handlers.confirm_message_received,
        ("store",),
    ),
    "push-messages": (fleet_pb2.PushMessagesRequest, handlers.push_messages, ()),
    "push-object": (message_pb2.PushObjectRequest, handlers.push_object, ()),
}
ROUTES = tuple(_CALLS)
_LARGE = 1 << 16  # bytes of a body whose digests are taken beside the event loop
_TURN = 10.0  # seconds for which a site waits for its turn to send before it must ask again


class Routes:
    """The fleet routes over a mailroom.

    Args:
        mailroom: whose mail they carry.
        hold: seconds for which a poll without mail is held; 0 where a proxy forbids it.
        intake: bytes of replies that may lie in memory at a time; at least one reply is taken.
        record: called with each refused request.

    An ASGI application.
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
        # Flower's authentication finds the state by way of an application.
        self._home = SimpleNamespace(state=SimpleNamespace(linkstate_factory=mailroom.factory))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request({**scope, "app": self._home}, receive)
        response = await http_error_translator(request, self._respond)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        """Parse, authenticate, bind, handle."""
        name = request.url.path.removeprefix(PREFIX)
        if name not in _CALLS or request.method != "POST":
            raise HTTPException(404, "there is nothing here")
        kind, handler, more = _CALLS[name]
        body = await request.body()
        ProtobufTranslationMiddleware._check_request_media_type(request)
        message = ProtobufTranslationMiddleware._parse_request(body, kind)
        request.state.protobuf_request = message
        try:
            authenticate_node(request)
        except HTTPException as error:  # a site that speaks in another's name
            site = request.scope.get("state", {}).get("site", "unknown")
            self._record({"event": "refused", "site": site, "route": request.url.path, "why": error.detail})
            raise
        state = self._room.factory.state()
        call = partial(handler, request=message, state=state, **({"store": state.object_store} if more else {}))
        answer = await self._bound(message, call, request.url.path, len(body))
        return Response(answer.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)

    async def _bound(self, message: Any, call: Callable[[], Protobuf], path: str, size: int) -> Protobuf:  # noqa: ANN401
        """Hold an authenticated request against its sender's mail, and handle it."""
        if isinstance(message, fleet_pb2.ActivateNodeRequest):
            if not self._room.returned(message.public_key):
                raise HTTPException(401, "unknown node")
            return call()
        node = message.node.node_id if hasattr(message, "node") else getattr(message, "node_id", 0)
        site = self._room.site_of(node)
        if site is None:
            raise HTTPException(401, "unknown node")
        self._room.hear(node)
        try:
            if isinstance(message, fleet_pb2.PushMessagesRequest):
                await self._turn(node)
            elif isinstance(message, fleet_pb2.PullMessagesRequest):
                await self._mail(node)
            self._room.binding.before(node, message)
        except NotAllowedError as error:
            self._record({"event": "refused", "site": site, "route": path, "why": str(error)})
            raise HTTPException(403, str(error)) from None
        answer = await run_in_threadpool(call) if size > _LARGE else call()
        mail = self._room.binding.after(node, message, answer)
        if mail is not None and not self._room.take_in(mail):
            raise HTTPException(409, "the reply was not stored")
        return answer

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
