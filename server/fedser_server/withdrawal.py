"""``POST /v1/fedser/leave``: an enrolled site signs off, and is shut out from the next request on.

Only the key that the site enrolled with can do it. Whatever is refused changes nothing; a repeat is answered as
the first was, so that a site whose answer was lost may ask again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedser.errors import FedserError
from fedser.federation.schema import PROTOCOL
from fedser.federation.withdrawal import LeaveRequest
from fedser_server.attempts import Attempts
from fedser_server.roster import RefusedError
from fedser_server.state import State

Record = Callable[[dict[str, Any]], None]


class Withdrawal:
    """The route's handler.

    Args:
        state: the provider's.
        record: takes one event for each site that leaves, and for each attempt that is refused.
        attempts: counts them.
    """

    def __init__(self, state: State, record: Record, attempts: Attempts | None = None) -> None:
        self._state, self._record, self._attempts = state, record, attempts or Attempts()

    async def leave(self, request: Request) -> Response:
        """Answer one request; its body is bounded by the gatekeeper before it comes here."""
        peer = request.client.host if request.client else "unknown"
        if not self._attempts.take(peer):
            return _refused(429, "rate")
        try:
            asked = LeaveRequest.model_validate_json(await request.body())
        except ValidationError:
            return self._refuse(peer, 400, "malformed")
        if asked.protocol != PROTOCOL or asked.study != self._state.study:
            return self._refuse(peer, 403, "study")
        try:
            fresh = await run_in_threadpool(self._state.roster.leave, asked)
        except RefusedError as error:
            return self._refuse(peer, 403, error.code)
        except FedserError:  # a damaged roster or a full disk: the details are the provider's
            return _refused(503, "unavailable")
        if fresh:
            self._record({"event": "left", "site": asked.site, "peer": peer})
        return JSONResponse({"protocol": PROTOCOL, "study": asked.study, "site": asked.site})

    def _refuse(self, peer: str, status: int, code: str) -> Response:
        if self._attempts.worth_telling(peer):
            self._record({"event": "leave refused", "peer": peer, "why": code})
        return _refused(status, code)


def _refused(status: int, code: str) -> Response:
    return JSONResponse({"protocol": PROTOCOL, "code": code}, status, headers={"connection": "close"})
