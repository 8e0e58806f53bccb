"""The open routes: the bundle as its owner signed it, and the chain of renewals. And the table of own routes.

The node serves a copy of the bundle that it keeps in its state folder, so that a file which is replaced while
the node runs never mixes with another one's signature. It signs no bundle and has no key to do so.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from fedser import files
from fedser.errors import BundleFormatError, FedserError, SignatureError
from fedser.federation.schema import PROTOCOL
from fedser.federation.trust import vouch
from fedser.federation.withdrawal import PATH as LEAVE
from fedser_server.enrolment import PATH, Enrolment, Record
from fedser_server.folder import make_private
from fedser_server.state import State
from fedser_server.withdrawal import Withdrawal

BUNDLE, TRUST = "/v1/fedser/bundle", "/v1/fedser/trust"


@dataclass(frozen=True)
class Published:
    """A bundle as it is served.

    Attributes:
        path: the node's own copy.
        digest: SHA-256 of the file, in hexadecimal.
        signature: its owner's, 128 hexadecimal digits.
        rounds: what the study does with it; 0 where it is only published.
        signer: its owner's key, and ``vouch``, the order key's word for it; both empty where nobody needs them.
    """

    path: Path
    digest: str
    signature: str
    rounds: int
    signer: str = ""
    vouch: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """What goes with every answer."""
        return {
            "fedser-signature": self.signature,
            "fedser-digest": self.digest,
            "fedser-protocol": str(PROTOCOL),
            "fedser-rounds": str(self.rounds),
            "etag": f'"{self.digest}"',
            "cache-control": "no-cache",
            **({"fedser-signer": self.signer, "fedser-vouch": self.vouch} if self.signer else {}),
        }


def take(state: State, bundle: Path, rounds: int) -> Published:
    """Copy a bundle and its signature into the state folder; other copies there go.

    Raises:
        BundleFormatError: the bundle cannot be read.
        SignatureError: there is no signature beside it.
        OutputError: the copy cannot be written.
    """
    signature = _signature(bundle)
    digest = _digest(bundle)
    folder = state.folder / "bundle"
    make_private(folder)
    copy = folder / f"{digest}.safetensors"
    if not copy.exists() or _digest(copy) != digest:
        with files.replacing(copy, mode=0o600) as scratch:
            shutil.copyfile(bundle, scratch)
            if _digest(scratch) != digest:
                raise BundleFormatError(f"{bundle} changed while it was read.", "Start the node again.")
    for other in folder.iterdir():
        if other != copy and other.is_file():
            other.unlink(missing_ok=True)
    return Published(copy, digest, signature, rounds)


def routes(state: State, bundle: Path, rounds: int, record: Record, signer: str = "") -> list[Route]:
    """The project's own routes.

    Args:
        state: the provider's.
        bundle: the ``.safetensors`` file, its signature beside it.
        rounds: of the study; 0 publishes only, and then there is nothing to enrol for or to leave.
        record: takes one event (a mapping for JSON) for each enrolment and each refusal.
        signer: the bundle's, for the order key to vouch for.

    Raises:
        BundleFormatError, SignatureError, OutputError: as :func:`take`.
    """
    published = take(state, bundle, rounds)
    if signer:
        word = vouch(state.order_key, state.study, signer)
        published = replace(published, signer=signer, vouch=word)

    async def serve_bundle(request: Request) -> Response:
        return _bundle(published, request)

    async def serve_trust(_: Request) -> Response:
        try:
            lines = await run_in_threadpool(lambda: state.trust)
        except FedserError:
            record({"event": "trust unavailable", "why": "state"})
            return JSONResponse({"code": "unavailable", "message": "Try again later."}, 503)
        text = "".join(f"{line}\n" for line in lines)
        return Response(text, media_type="application/jsonl", headers={"cache-control": "no-cache"})

    open_routes = [Route(BUNDLE, serve_bundle, methods=["GET"]), Route(TRUST, serve_trust, methods=["GET"])]
    if rounds == 0:
        return open_routes
    enrol, leave = Enrolment(state, record).enrol, Withdrawal(state, record).leave
    return [*open_routes, Route(PATH, enrol, methods=["POST"]), Route(LEAVE, leave, methods=["POST"])]


def _bundle(published: Published, request: Request) -> Response:
    headers = published.headers
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    if "," in request.headers.get("range", ""):
        # Thousands of ranges in one request would cost more than the whole file: it gets the whole file.
        del MutableHeaders(scope=request.scope)["range"]
    return FileResponse(published.path, headers=headers, media_type="application/octet-stream")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BundleFormatError(f"{path} cannot be read: {reason}.", "Name a bundle's .safetensors file.") from None


def _signature(bundle: Path) -> str:
    path = bundle.with_name(bundle.name + ".sig")
    try:
        text = path.read_text(encoding="ascii").strip()
        good = len(bytes.fromhex(text)) == 64
    except (OSError, ValueError):
        good = False
    if not good:
        raise SignatureError(f"There is no signature {path}.", "Publish the bundle together with its .sig file.")
    return text.lower()
