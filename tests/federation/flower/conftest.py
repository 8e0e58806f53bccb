"""A real provider's routes under TLS on loopback, in this process."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedser.federation.flower import environment

environment.prepare(Path("/nonexistent"))

from fedser.federation.flower.mailroom import Mailroom  # noqa: E402
from fedser.federation.flower.routes import Routes  # noqa: E402
from fedser.federation.flower.site import Line  # noqa: E402


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for loopback; returns certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "server.pem", folder / "server-key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


@dataclass
class Network:
    """A mailroom behind real routes, and the keys of its sites."""

    room: Mailroom
    address: str
    certificate: Path
    records: list[Any]
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)

    def enrol(self, site: str) -> None:
        self.keys[site] = ec.generate_private_key(ec.SECP384R1())
        self.room.admit(site, pem(self.keys[site]))

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))

    def line(self, site: str, **options: Any) -> Line:
        options = {"limit": self.room.largest, **options}
        return Line(self.address, self.context(), self.keys[site], **options)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Any]:
    """A function that starts a network, with options of the mailroom and its routes."""
    running: list[tuple[uvicorn.Server, threading.Thread, Mailroom]] = []

    def start(largest: int = 1 << 20, *, hold: float = 2.0, intake: int = 1 << 29, **options: Any) -> Network:
        records: list[Any] = []
        room = Mailroom(largest, **options)
        routes = Routes(room, hold=hold, intake=intake, record=records.append)
        cert, key = certificate(tmp_path)
        config = uvicorn.Config(
            routes,
            host="127.0.0.1",
            port=0,
            ssl_certfile=cert,
            ssl_keyfile=key,
            log_level="critical",
            lifespan="off",
            ws="none",
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        running.append((server, thread, room))
        return Network(room, f"127.0.0.1:{port}", cert, records)

    yield start
    for server, thread, room in running:
        room.close()
        server.should_exit = True
        thread.join(10)
