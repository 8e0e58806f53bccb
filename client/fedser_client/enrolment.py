"""Enrolment: the token of the invitation is exchanged for the registration of two public keys."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from fedser.bundle.keys import SigningKey
from fedser.errors import EnrolmentError
from fedser.federation import enrolment
from fedser.federation.audit import AuditLog
from fedser.federation.schema import PROTOCOL
from fedser_client.http import Answer, Routes
from fedser_client.settings import SiteSettings

PATH = "/v1/fedser/enrol"
_LIMIT = 16_384  # bytes of an answer
_NEW = "Ask the provider for a new invitation."
_REFUSALS = {
    "token": ("The provider does not know this invitation's token.", _NEW),
    "expired": ("The invitation has expired.", _NEW),
    "revoked": ("The provider has revoked this site.", "Ask the provider why."),
    "key": (
        "The invitation was used before, with other keys.",
        "If it was not you, tell the provider: somebody else holds the invitation. Else take up the old --state.",
    ),
    "proof": ("The provider does not accept the proof of this site's keys.", "Ask which version of fedser it runs."),
}


def enrol(
    routes: Routes, settings: SiteSettings, node: ec.EllipticCurvePrivateKey, reply: SigningKey, audit: AuditLog
) -> SiteSettings:
    """Exchange the token; the same keys may try again as often as needed.

    Returns:
        The settings without the token.

    Raises:
        EnrolmentError: the provider refuses, with its code in this program's words.
        NetworkError: it cannot be reached, or does not answer like one.
        OutputError: the audit log cannot be written; nothing leaves then.
    """
    request = enrolment.request(settings.study, settings.site, settings.token or "", node, reply)
    body = json.dumps(request.model_dump(), sort_keys=True, separators=(",", ":")).encode("utf-8")
    digest = hashlib.sha256(body).hexdigest()
    audit.append({"time": int(time.time()), "event": "enrolment", "bytes": len(body), "sha256": digest})
    answer = routes.post(PATH, body, _LIMIT)
    told = _object(answer)
    if answer.status == 200:
        if (told.get("study"), told.get("site")) != (settings.study, settings.site):
            raise routes.strange("it enrolled another site than this one")
        return settings.model_copy(update={"token": None, "expires": 0})
    if answer.status == 409:
        theirs = told.get("protocol")
        raise EnrolmentError(
            f"The provider speaks version {theirs if isinstance(theirs, int) else 'unknown'} of the protocol, "
            f"this fedser version {PROTOCOL}.",
            "Install the version of fedser that the provider runs.",
        )
    if answer.status == 403:
        raise EnrolmentError(*_REFUSALS.get(str(told.get("code")), ("The provider refuses this site.", _NEW)))
    if answer.status == 400:
        raise EnrolmentError("The provider cannot read this site's request.", "Ask which version of fedser it runs.")
    raise routes.strange(f"enrolment answers with status {answer.status}")


def _object(answer: Answer) -> dict[str, Any]:
    try:
        told = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
