"""Fetching the signed bundle: resumed after a cut, verified before a byte of it is interpreted, never half-written."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from fedser import bundle as bundles
from fedser.bundle import Bundle
from fedser.bundle.format import MAX_BYTES, default_path, default_signer, signature_path
from fedser.errors import EnrolmentError, FedserError, OutputError, RollbackError, SignatureError, StateError
from fedser.federation.schema import PROTOCOL
from fedser.federation.trust import check_vouch
from fedser.files import write_text
from fedser_client.chain import refresh
from fedser_client.http import Routes
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder

PATH = "/v1/fedser/bundle"
_FORMS = {"fedser-digest": r"[0-9a-f]{64}", "fedser-signature": r"[0-9a-f]{128}", "fedser-rounds": r"[0-9]{1,7}"}


@dataclass(frozen=True)
class Published:
    """What the provider publishes: a verified bundle, and the rounds that it runs (0: none, publish only)."""

    bundle: Bundle
    rounds: int


@dataclass(frozen=True)
class _Offer:
    """The headers of the bundle's route."""

    digest: str
    signature: str
    rounds: int
    signer: str = ""
    vouch: str = ""


def fetch(routes: Routes, folder: SiteFolder, settings: SiteSettings) -> Published:
    """The provider's bundle: the stored one when it is the same, else a fresh one that replaces it.

    Raises:
        NetworkError: the provider cannot be reached, or does not answer like one.
        EnrolmentError: it speaks another protocol.
        SignatureError: the bytes are not those that the trusted key signed.
        RollbackError: the bundle is older than one that was accepted.
        StateError: rounds were answered with another bundle.
        BundleFormatError: signed, but damaged or for another version of fedser.
    """
    path = folder.file("bundle.safetensors")
    for damaged in (False, True):  # a body that does not have its digest is fetched once more, from the start
        offer, same = routes.patiently(lambda: _receive(routes, folder, path))
        part = _part(folder, offer.digest)
        settings = _vouched(routes, folder, settings, offer)
        if same:
            return Published(_open(path, settings), offer.rounds)
        if _digest(part) == offer.digest:
            break
        part.unlink()
        if damaged:
            raise SignatureError(
                "The bundle that came does not have the digest that the provider tells.",
                "Try again later, and tell the provider if it goes on.",
            )
    if folder.file("state.safetensors").exists():
        part.unlink()
        raise StateError(
            "The provider now publishes another bundle than the one that this site's rounds began with.",
            "Ask for an invitation to the new study, and join with another --state.",
        )
    return Published(_install(part, offer, path, settings), offer.rounds)


def _vouched(routes: Routes, folder: SiteFolder, settings: SiteSettings, offer: _Offer) -> SiteSettings:
    """Settings with the bundle's signer: where the invitation names none, the first one the order key vouches for.

    Raises:
        SignatureError: it vouches for none.
    """
    if settings.bundle_key is not None or offer.digest == _digest(default_path()):
        return settings
    if not re.fullmatch(r"[0-9a-f]{64}", offer.signer):
        raise routes.strange("it names no signer of the bundle, and the invitation names none")
    try:
        check_vouch(settings.trusted_key or settings.order_key, settings.study, offer.signer, offer.vouch)
    except SignatureError:  # the order key may have been renewed since the invitation
        settings = refresh(routes, folder, settings)
        check_vouch(settings.trusted_key or settings.order_key, settings.study, offer.signer, offer.vouch)
    return folder.remember(settings.model_copy(update={"bundle_key": offer.signer}))


def stored(folder: SiteFolder, settings: SiteSettings) -> Bundle:
    """The bundle in the state folder, verified anew.

    Raises:
        BundleError: it is missing, damaged or not the trusted key's.
    """
    return _open(folder.file("bundle.safetensors"), settings)


def _receive(routes: Routes, folder: SiteFolder, path: Path) -> tuple[_Offer, bool]:
    """Bring the offered bundle into ``incoming/``; whether the stored one is the same, and nothing had to come.

    Raises:
        httpx.HTTPError: the transfer broke off; what came is kept.
    """
    known, have = _partial(folder), _digest(path) if path.exists() and signature_path(path).exists() else ""
    begun = known.stat().st_size if known else 0
    headers = {"range": f"bytes={begun}-", "if-range": f'"{known.stem}"'} if known and begun else {}
    if have:
        headers = {"if-none-match": f'"{have}"'}
    with routes.stream("GET", PATH, headers) as response:
        status = response.status_code
        if status == 416 and known is not None:  # all of it is here, or it is another file
            known.unlink()
            raise httpx.RemoteProtocolError("the bundle could not be resumed")
        if status not in (200, 206, 304):
            raise routes.strange(f"the bundle's route answers with status {status}")
        offer = _offer(routes, response.headers)
        if have == offer.digest:
            return offer, True
        part = _part(folder, offer.digest)
        resumed = status == 206 and part == known
        if status == 304 or (status == 206 and not (resumed and _continues(response, begun))):
            raise routes.strange("it sends another part of the bundle than was asked for")
        if known is not None and not resumed:
            known.unlink()
        _append(routes, response, part, begun if resumed else 0)
    return offer, False


def _continues(response: httpx.Response, begun: int) -> bool:
    return str(response.headers.get("content-range", "")).startswith(f"bytes {begun}-")


def _offer(routes: Routes, headers: Mapping[str, str]) -> _Offer:
    protocol = headers.get("fedser-protocol", "")
    if protocol != str(PROTOCOL):
        if not re.fullmatch(r"[0-9]{1,7}", protocol):
            raise routes.strange("it tells no protocol version")
        raise EnrolmentError(
            f"The provider speaks version {protocol} of the protocol, this fedser version {PROTOCOL}.",
            "Install the version of fedser that the provider runs.",
        )
    for name, form in _FORMS.items():
        if not re.fullmatch(form, headers.get(name, "")):
            raise routes.strange(f"the bundle comes without a proper header {name}")
    word = (headers.get("fedser-signer", ""), headers.get("fedser-vouch", ""))
    return _Offer(headers["fedser-digest"], headers["fedser-signature"], int(headers["fedser-rounds"]), *word)


def _append(routes: Routes, response: httpx.Response, part: Path, size: int) -> None:
    """Write the body behind the first ``size`` bytes, as it comes."""
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and size + int(declared) > MAX_BYTES:
        raise routes.strange(f"the bundle is larger than {MAX_BYTES} bytes")
    try:
        part.parent.mkdir(mode=0o700, exist_ok=True)
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(target, "ab") as file:
            for chunk in response.iter_raw():
                size += len(chunk)
                if size > MAX_BYTES:
                    raise routes.strange(f"the bundle is larger than {MAX_BYTES} bytes")
                file.write(chunk)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"{part} cannot be written: {reason}.", "Free some space, and start again.") from None
    except FedserError:
        part.unlink(missing_ok=True)
        raise


def _install(part: Path, offer: _Offer, path: Path, settings: SiteSettings) -> Bundle:
    """Verify what came, then let it take the stored bundle's place."""
    write_text(signature_path(part), offer.signature + "\n", mode=0o600)
    try:
        bundle = bundles.read(part, signer=_signer(offer.digest, settings), accepted_version=settings.bundle_version)
        if settings.bundle_name not in (None, bundle.header.name):
            raise RollbackError(
                f"The bundle's name is {bundle.header.name}, but {settings.bundle_name} was accepted before.",
                "Ask the provider; a bundle of another name needs a new invitation and another --state.",
            )
    except FedserError:
        part.unlink()
        signature_path(part).unlink()
        raise
    signature_path(path).unlink(missing_ok=True)  # never a file beside a signature that belongs to another one
    part.replace(path)
    signature_path(part).replace(signature_path(path))
    with suppress(OSError):
        part.parent.rmdir()
    return bundle


def _open(path: Path, settings: SiteSettings) -> Bundle:
    signer = _signer(_digest(path), settings) if path.exists() else settings.bundle_key
    return bundles.read(path, signer=signer, accepted_version=settings.bundle_version)


def _signer(digest: str, settings: SiteSettings) -> str | None:
    """The invitation's key, or the one that was vouched for; the packaged key for the packaged bundle."""
    return default_signer() if digest == _digest(default_path()) else settings.bundle_key


def _part(folder: SiteFolder, digest: str) -> Path:
    """Where a bundle with this digest grows; the name tells which one can be resumed."""
    return folder.file("incoming") / f"{digest}.part"


def _partial(folder: SiteFolder) -> Path | None:
    found = sorted(folder.file("incoming").glob("*.part"))
    for other in found[1:]:
        other.unlink()
    return found[0] if found and re.fullmatch(r"[0-9a-f]{64}", found[0].stem) else None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
