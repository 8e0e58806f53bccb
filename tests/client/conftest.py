"""A provider's own routes over real TLS on loopback, with faults to switch on; and a site's little world."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fedser_client.http import Routes
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from fedser.bundle.keys import SigningKey, digest
from fedser.federation.invitation import Invitation, certificate_digest

Handler = Callable[[Request], Awaitable[Response]]
TOKEN = "A" * 22


@dataclass
class Authority:
    """A test CA; ``issue`` makes server certificates."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    name: x509.Name = field(
        default_factory=lambda: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
    )

    def __post_init__(self) -> None:
        self.pem = self._sign(self.name, self.key, None, timedelta(days=-1), timedelta(days=9))

    def issue(self, folder: Path, host: str = "127.0.0.1", start: int = -1, end: int = 9) -> tuple[Path, Path]:
        """Certificate and key files; start and end in days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
        pem = self._sign(name, key, host, timedelta(days=start), timedelta(days=end))
        folder.mkdir(exist_ok=True)
        (folder / "server.pem").write_text(pem)
        plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "server-key.pem").write_bytes(plain)
        return folder / "server.pem", folder / "server-key.pem"

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None, start: timedelta, end: timedelta
    ) -> str:
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + start)
            .not_valid_after(now + end)
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if host is None:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            made = made.add_extension(usage, critical=True)
        else:
            known = x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host)
            made = made.add_extension(x509.SubjectAlternativeName([known]), critical=False)
        return made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@dataclass
class Desk:
    """What the provider's own routes answer. Replace ``bundle``, ``enrol``, ``leave`` or ``trust`` to make a fault.

    Attributes:
        seen: (method, path, headers, body) of each request.
    """

    path: Path
    signature: str
    rounds: int = 0
    protocol: str = "1"
    chain: str = ""
    signer: str = ""
    vouch: str = ""
    bundle: Handler | None = None
    enrol: Handler | None = None
    leave: Handler | None = None
    address: str = ""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    def headers(self, path: Path | None = None) -> dict[str, str]:
        told = digest((path or self.path).read_bytes())
        return {
            "fedser-signature": self.signature,
            "fedser-digest": told,
            "fedser-protocol": self.protocol,
            "fedser-rounds": str(self.rounds),
            "etag": f'"{told}"',
            **({"fedser-signer": self.signer, "fedser-vouch": self.vouch} if self.signer else {}),
        }

    def asked(self, path: str) -> list[tuple[str, str, dict[str, str], bytes]]:
        return [request for request in self.seen if request[1] == path]

    def app(self) -> Starlette:
        async def bundle(request: Request) -> Response:
            await self._note(request)
            if self.bundle is not None:
                return await self.bundle(request)
            return FileResponse(self.path, headers=self.headers())

        async def enrol(request: Request) -> Response:
            body = json.loads(await self._note(request))
            if self.enrol is not None:
                return await self.enrol(request)
            return JSONResponse({"protocol": 1, "study": body["study"], "site": body["site"]})

        async def leave(request: Request) -> Response:
            body = json.loads(await self._note(request))
            if self.leave is not None:
                return await self.leave(request)
            return JSONResponse({"protocol": 1, "study": body["study"], "site": body["site"]})

        async def trust(request: Request) -> Response:
            await self._note(request)
            return PlainTextResponse(self.chain)

        return Starlette(
            routes=[
                Route("/v1/fedser/bundle", bundle),
                Route("/v1/fedser/enrol", enrol, methods=["POST"]),
                Route("/v1/fedser/leave", leave, methods=["POST"]),
                Route("/v1/fedser/trust", trust),
            ]
        )

    async def _note(self, request: Request) -> bytes:
        body = await request.body()
        self.seen.append((request.method, request.url.path, dict(request.headers), body))
        return body


class Running:
    """An ASGI application under uvicorn with TLS, in a thread."""

    def __init__(self, app: Any, certificate: Path | None, key: Path | None, port: int = 0) -> None:
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            ssl_certfile=certificate,
            ssl_keyfile=key,
            log_level="critical",
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        return f"127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def running() -> type[Running]:
    return Running


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def certificate(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return authority.issue(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def desk(signed: Any, certificate: tuple[Path, Path]) -> Iterator[Desk]:
    """A provider that publishes the small signed bundle; nothing is wrong with it yet."""
    made = Desk(signed.path, Path(f"{signed.path}.sig").read_text().strip())
    with Running(made.app(), *certificate) as address:
        made.address = address
        yield made


@pytest.fixture(scope="session")
def order_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())


@pytest.fixture
def invitation(desk: Desk, authority: Authority, signed: Any, order_key: SigningKey, tmp_path: Path) -> Path:
    path = tmp_path / "a.invite"
    ca_sha256 = certificate_digest(authority.pem)
    assert ca_sha256
    Invitation(
        study="study",
        site="site-1",
        address=desk.address,
        ca=authority.pem,
        ca_sha256=ca_sha256,
        bundle_key=signed.signer,
        order_key=order_key.public_hex,
        token=TOKEN,
        expires=int(time.time()) + 3600,
    ).write(path)
    return path


@pytest.fixture
def settings(desk: Desk, authority: Authority, signed: Any, order_key: SigningKey, tmp_path: Path) -> SiteSettings:
    return SiteSettings(
        study="study",
        site="site-1",
        address=desk.address,
        ca=authority.pem,
        order_key=order_key.public_hex,
        bundle_key=signed.signer,
        token=TOKEN,
        expires=int(time.time()) + 3600,
        data=tmp_path,
    )


@pytest.fixture
def folder(tmp_path: Path) -> SiteFolder:
    return SiteFolder.make(tmp_path / "state")


@pytest.fixture
def routes(desk: Desk, authority: Authority) -> Iterator[Routes]:
    """A connection whose waiting takes no time; it gives up after a few attempts."""
    now = [0.0]
    patience = Patience(10.0, sleep=lambda pause: now.__setitem__(0, now[0] + pause), clock=lambda: now[0])
    with Routes(desk.address, [authority.pem], None, patience) as opened:
        yield opened


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site's recordings: 2 speakers, 12 short recordings."""
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("site") / "recordings"
    emotions = ("anger", "neutral", "sadness")
    plan = CorpusPlan("site", speakers=2, utterances=12, emotions=emotions, seconds=(0.6, 0.8), first=50)
    write_corpus(folder, plan, seed=6)
    return folder


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.Popen[str]]:
    """Start the real ``fedser-client`` in a process of its own."""

    def call(*arguments: object, **extra: str) -> subprocess.Popen[str]:
        environment = os.environ | {"OMP_NUM_THREADS": "1"} | extra
        environment["FEDSER_CACHE"] = str(tmp_path_factory.getbasetemp() / "cache")
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        command = [sys.executable, "-m", "fedser_client", *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return call
