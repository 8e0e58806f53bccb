"""Enrolment: both keys prove themselves, refusals are told in the site's own words, and it is recorded first."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from fedser_client import chain, keys
from fedser_client.enrolment import PATH, enrol
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedser.errors import EnrolmentError, NetworkError, OutputError, RollbackError, SignatureError
from fedser.federation.audit import AuditLog, read
from fedser.federation.trust import renew


def enrolled(routes: Any, folder: Any, settings: Any) -> Any:
    audit = AuditLog(folder.file("audit.jsonl"))
    return enrol(routes, settings, keys.node_key(folder), keys.reply_key(folder), audit)


def test_the_request_proves_both_keys(desk: Any, routes: Any, folder: Any, settings: Any) -> None:
    after = enrolled(routes, folder, settings)
    assert after.enrolled
    assert after.token is None
    [(_, _, _, sent)] = desk.asked(PATH)
    body = json.loads(sent)
    proofs = {name: bytes.fromhex(body.pop(name)) for name in ("node_proof", "reply_proof")}
    assert set(body) == {"protocol", "study", "site", "token", "node_key", "reply_key"}
    signed = b"fedser/enrol/1\n" + json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    node = load_pem_public_key(body["node_key"].encode())
    assert isinstance(node, ec.EllipticCurvePublicKey)
    assert isinstance(node.curve, ec.SECP384R1)
    node.verify(proofs["node_proof"], signed, ec.ECDSA(SHA256()))
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(body["reply_key"])).verify(proofs["reply_proof"], signed)
    with pytest.raises(InvalidSignature):
        node.verify(proofs["node_proof"], signed + b" ", ec.ECDSA(SHA256()))


def test_it_is_recorded_before_it_leaves(desk: Any, routes: Any, folder: Any, settings: Any) -> None:
    async def look(request: Request) -> Response:
        [record] = read(folder.file("audit.jsonl"))
        assert record["event"] == "enrolment"
        assert record["bytes"] == len(await request.body())
        return JSONResponse({"study": "study", "site": "site-1"})

    desk.enrol = look
    assert enrolled(routes, folder, settings).enrolled
    assert settings.token not in folder.file("audit.jsonl").read_text()
    folder.file("audit.jsonl").unlink()
    folder.file("audit.jsonl").mkdir()
    before = len(desk.seen)
    with pytest.raises(OutputError):
        enrol(routes, settings, keys.node_key(folder), keys.reply_key(folder), log_in(folder))
    assert len(desk.seen) == before


def log_in(folder: Any) -> AuditLog:
    log = AuditLog()
    log._path = folder.file("audit.jsonl")
    return log


def answer(status: int, body: object) -> Callable[[Request], Any]:
    async def told(request: Request) -> Response:
        return JSONResponse(body, status_code=status)

    return told


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (403, {"code": "token"}, EnrolmentError, "does not know"),
        (403, {"code": "key"}, EnrolmentError, "used before"),
        (403, {"code": "revoked"}, EnrolmentError, "revoked"),
        (403, {"code": "expired"}, EnrolmentError, "expired"),
        (403, {"code": "proof"}, EnrolmentError, "proof"),
        (403, {"code": "\x1b[31mred"}, EnrolmentError, "refuses"),
        (403, [], EnrolmentError, "refuses"),
        (409, {"code": "protocol", "protocol": 2}, EnrolmentError, "version 2"),
        (409, {"protocol": "\x1b[31m"}, EnrolmentError, "version unknown"),
        (400, {}, EnrolmentError, "cannot read"),
        (404, {}, NetworkError, "404"),
        (302, {}, NetworkError, "elsewhere"),
        (200, {"study": "study", "site": "site-2"}, NetworkError, "another site"),
        (200, {"study": "x" * 20_000}, NetworkError, "larger"),
    ],
)
def test_refusals_are_told_in_own_words_and_keep_the_token(
    desk: Any, routes: Any, folder: Any, settings: Any, status: int, body: object, error: Any, words: str
) -> None:
    desk.enrol = answer(status, body)
    with pytest.raises(error, match=words) as caught:
        enrolled(routes, folder, settings)
    assert "\x1b" not in str(caught.value) + caught.value.hint
    assert caught.value.hint


def test_renewals_are_walked_and_remembered(
    desk: Any, routes: Any, folder: Any, settings: Any, order_key: Any, authority: Any, tmp_path: Any
) -> None:
    from fedser.bundle.keys import create

    first = chain.refresh(routes, folder, settings)
    assert first.trusted_key == order_key.public_hex
    new, newest = create(tmp_path / "new"), create(tmp_path / "newest")
    lines = [renew([], order_key, order_key=new.public_hex, ca=authority.pem)]
    desk.chain = "\n".join(lines) + "\n"
    second = chain.refresh(routes, folder, first)
    assert second.trusted_key == new.public_hex
    assert folder.settings() == second
    desk.chain = ""
    with pytest.raises(RollbackError):
        chain.refresh(routes, folder, second)
    desk.chain = "\n".join([*lines, renew(lines, newest, order_key=newest.public_hex, ca=authority.pem)])
    with pytest.raises((SignatureError, EnrolmentError)):
        chain.refresh(routes, folder, second)
    desk.chain = "x" * 2_000_000
    with pytest.raises(NetworkError):
        chain.refresh(routes, folder, second)
    assert folder.settings() == second
