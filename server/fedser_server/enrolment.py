"""``POST /v1/fedser/enrol``: an invited site exchanges its token for a place among the enrolled.

Everything here comes from somebody who is not authenticated yet: the attempts are counted first, the body is
bounded in bytes and seconds, the token is looked at before anything else is parsed, and whatever is refused
changes nothing and is recorded without token or keys.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from fedser.errors import FedserError
from fedser.federation.enrolment import MAX_BYTES, EnrolRequest
from fedser.federation.schema import PROTOCOL
from fedser_server.attempts import Attempts
from fedser_server.roster import RefusedError
from fedser_server.state import State

PATH = "/v1/fedser/enrol"
Record = Callable[[dict[str, Any]], None]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION_HINT = "Install the version of fedser that the provider names, on one of the two sides."


class _NotEnrolledError(Exception):
    """An answer other than 200: status, code, message, hint."""

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.status, self.body = status, {"code": code, "message": message, "hint": hint}


class Enrolment:
    """The route's handler.

    Args:
        state: the provider's.
        record: takes one event for each attempt.
        attempts: counts them.
        patience: seconds for a body to arrive.
    """

    def __init__(self, state: State, record: Record, attempts: Attempts | None = None, patience: float = 10.0) -> None:
        self._state, self._record = state, record
        self._attempts, self._patience = attempts or Attempts(), patience

    async def enrol(self, request: Request) -> Response:
        """Answer one request."""
        peer = request.client.host if request.client else "unknown"
        claimed: dict[str, Any] = {}
        try:
            if not self._attempts.take(peer):
                raise _NotEnrolledError(429, "rate", "Too many attempts.", "Wait a minute, then try again.")
            claimed.update(_parsed(await _body(request, self._patience)))
            asked = _typed(claimed, self._state.study)
            entry = await run_in_threadpool(self._state.roster.enrol, asked)
        except (_NotEnrolledError, FedserError) as error:
            return self._refuse(peer, claimed, _answer(error))
        self._record({"event": "enrolled", "site": entry.name, "peer": peer})
        return JSONResponse({"protocol": PROTOCOL, "study": asked.study, "site": entry.name})

    def _refuse(self, peer: str, claimed: dict[str, Any], answer: _NotEnrolledError) -> Response:
        code = answer.body["code"]
        if code != "rate" or self._attempts.worth_telling(peer):
            self._record({"event": "enrolment refused", "site": _name(claimed.get("site")), "peer": peer, "why": code})
        body = answer.body | ({"protocol": PROTOCOL} if code == "protocol" else {})
        # The connection ends with the answer: what may be left of a body is not waited for.
        return JSONResponse(body, answer.status, headers={"connection": "close"})


def _answer(error: Exception) -> _NotEnrolledError:
    if isinstance(error, _NotEnrolledError):
        return error
    if isinstance(error, RefusedError):
        return _NotEnrolledError(400 if error.code == "malformed" else 403, error.code, str(error), error.hint)
    # A damaged roster or a full disk: the details are the provider's.
    return _NotEnrolledError(503, "unavailable", "The provider cannot enrol anybody at the moment.", "Try again later.")


async def _body(request: Request, patience: float) -> bytes:
    """The request's body, bounded in bytes and in time."""
    data = bytearray()
    try:
        async with asyncio.timeout(patience):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise _malformed(413, f"The request is larger than {MAX_BYTES} bytes.")
    except TimeoutError:
        raise _malformed(408, "The request did not arrive in time.") from None
    except ClientDisconnect:
        raise _malformed(400, "The request ended early.") from None
    return bytes(data)


def _parsed(data: bytes) -> dict[str, Any]:
    """The body's JSON object; a key that stands there twice is no key."""
    try:
        values = json.loads(data, object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise _malformed(400, "The request is not one JSON object.")
    return values


def _typed(values: dict[str, Any], study: str) -> EnrolRequest:
    spoken = values.get("protocol")
    if type(spoken) is not int:
        raise _malformed(400, "The request names no protocol version.")
    if spoken != PROTOCOL:
        message = f"The site speaks protocol version {str(spoken)[:12]}, this provider version {PROTOCOL}."
        raise _NotEnrolledError(409, "protocol", message, _VERSION_HINT)
    try:
        asked = EnrolRequest.model_validate(values)
    except ValidationError:
        raise _malformed(400, "The request does not fit the protocol.") from None
    if asked.study != study:
        raise RefusedError("token", "The invitation's token is not good here.")
    return asked


def _malformed(status: int, message: str) -> _NotEnrolledError:
    return _NotEnrolledError(status, "malformed", message, "Use the version of fedser that the provider names.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _name(claimed: object) -> str | None:
    """A claimed site's name, if it is one: nothing else gets into the records."""
    return claimed if isinstance(claimed, str) and _NAME.fullmatch(claimed) else None
