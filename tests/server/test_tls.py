"""TLS as sites meet it: real handshakes on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from fedser_server import certificates, tls
from fedser_server.authority import AuthorityFolder
from fedser_server.certificates import key_pem, new_authority, new_server, pem
from fedser_server.state import State

from fedser.errors import ConfigError, StateError


@contextmanager
def listening(context: ssl.SSLContext) -> Iterator[int]:
    """A server on loopback that answers each connection with 'hello'."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    plain, _ = server.accept()
                except TimeoutError:
                    continue
                plain.settimeout(2)
                try:
                    with context.wrap_socket(plain, server_side=True) as connection:
                        connection.sendall(b"hello")
                except OSError:
                    plain.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            stop.set()
            thread.join()


def site(ca: str) -> ssl.SSLContext:
    """What a site holds: one authority, names checked, TLS 1.3; made with Python's own defaults."""
    context = ssl.create_default_context(cadata=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    return context


def connect(port: int, context: ssl.SSLContext, name: str = "localhost") -> tuple[bytes, str | None]:
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return connection.recv(10), connection.version()


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State.open(tmp_path / "provider", study="trial")


def test_the_pinned_authority_is_accepted_under_each_name(state: State) -> None:
    state.remember(address="fedser.example.org:9443")
    with listening(tls.LiveContext(state.certificates()).context) as port:
        for name in ("localhost", "127.0.0.1", "::1", "fedser.example.org"):
            assert connect(port, site(state.ca), name) == (b"hello", "TLSv1.3")


def test_strangers_and_old_protocols_are_refused(state: State) -> None:
    with listening(tls.server_context(state.certificates())) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(port, site(pem(new_authority().certificate)))
        with pytest.raises(ssl.SSLCertVerificationError, match="ostname mismatch"):
            connect(port, site(state.ca), "other.example.org")
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            connect(port, site(state.ca), "10.0.0.1")
        with pytest.raises(ssl.SSLCertVerificationError):  # the authorities of the operating system
            connect(port, ssl.create_default_context())
        old = ssl.create_default_context(cadata=state.ca)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(port, old)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(b"GET /v1/fedser/bundle HTTP/1.1\r\nHost: localhost\r\n\r\n")
            try:
                answer = plain.recv(100)
            except ConnectionError:
                answer = b""
        assert b"hello" not in answer
        assert not answer.startswith(b"HTTP")
        assert connect(port, site(state.ca))[0] == b"hello"  # and the server goes on


def test_after_renewals_a_site_that_pinned_the_first_authority_connects(state: State) -> None:
    first = state.ca
    live = tls.LiveContext(state.certificates())
    with listening(live.context) as port:
        for _ in range(certificates.RENEWALS):
            assert state.renew_ca() == 0
            assert live.reload()
            assert state.ca != first
            for ca in (first, state.ca):
                for name in ("localhost", "127.0.0.1"):  # an address comes without a server name
                    assert connect(port, site(ca), name)[0] == b"hello"
        assert state.renew_ca() == 1  # one more is one too many for the first, and that is said
        live.reload()
        assert connect(port, site(state.ca))[0] == b"hello"
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(port, site(first))


def test_a_running_node_takes_up_a_new_name(state: State) -> None:
    live = tls.LiveContext(state.certificates())
    with listening(live.context) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(port, site(state.ca), "new.example.org")
        assert not live.reload()
        state.remember(address="new.example.org:443")
        state.certificates()
        assert live.reload()
        assert connect(port, site(state.ca), "new.example.org")[0] == b"hello"


def test_a_half_written_pair_is_left_alone(tmp_path: Path) -> None:
    files = own(tmp_path, ["localhost"])
    live = tls.LiveContext(tls.own_certificates(*files, ["localhost"]))
    (tmp_path / "key.pem").write_text(key_pem(ec.generate_private_key(ec.SECP256R1())))
    assert not live.reload()
    with listening(live.context) as port:
        assert connect(port, site(files[2].read_text()))[0] == b"hello"


def test_a_node_that_runs_for_a_year_renews_its_certificate(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    clock = [0.0]
    monkeypatch.setattr(tls.time, "monotonic", lambda: clock[0])

    def renew() -> None:
        asked.append(clock[0])
        if len(asked) == 1:
            raise StateError("The roster is damaged.", "Restore it.")
        state.renew_certificate()

    live = tls.LiveContext(state.certificates(), renew)
    told = []
    for clock[0] in (0.0, 3599.0, 3600.0, 3700.0, 7200.0):
        told.append(live.reload())
    assert asked == [3600.0, 7200.0]
    assert told == [False] * 4 + [True]


def test_the_certificate_is_issued_anew_in_time(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir(mode=0o700)
    folder = AuthorityFolder(tmp_path / "p")
    folder.create()
    start = datetime.now(UTC)
    assert folder.ensure_server(["localhost"], now=start)
    assert not folder.ensure_server(["localhost"], now=start + timedelta(days=367))
    assert folder.ensure_server(["localhost"], now=start + timedelta(days=369))  # 29 days before its end
    assert folder.ensure_server(["localhost", "b.example"], now=start + timedelta(days=370))
    assert folder.ensure_server(["localhost"], now=start + timedelta(days=300))  # its clock was wrong before
    with pytest.raises(StateError, match="clock"):
        folder.ensure_server(["localhost"], now=start - timedelta(days=300))
    folder.server.write_text("damaged")
    assert folder.ensure_server(["localhost"], now=start + timedelta(days=370))
    with pytest.raises(StateError, match="expired"):
        folder.ensure_server(["localhost"], now=start + timedelta(days=21 * 365))


def test_what_the_certificates_say(state: State) -> None:
    ca = x509.load_pem_x509_certificate(state.ca.encode())
    limits = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert limits.critical
    assert limits.value.ca
    assert (ca.not_valid_after_utc - ca.not_valid_before_utc).days >= 20 * 365
    served = x509.load_pem_x509_certificates(state.certificates().chain.read_bytes())[0]
    assert not served.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (served.not_valid_after_utc - datetime.now(UTC)).days in (397, 398)
    assert tls.sha256(state.ca) == ca.fingerprint(SHA256()).hex()


def test_the_server_certificate_can_sign_nothing(state: State, tmp_path: Path) -> None:
    """Somebody who stole the server's key cannot make a certificate that sites accept."""
    data = state.certificates().chain.read_bytes()
    served = x509.load_pem_x509_certificates(data)[0]
    key = certificates.Authority(served, private_key(data))
    forged, forged_key = new_server(key, ["localhost"])
    (tmp_path / "forged.pem").write_text(key_pem(forged_key) + pem(forged) + pem(served))
    context = tls.server_context(tls.Certificates(tmp_path / "forged.pem", tmp_path / "forged.pem", state.ca))
    with listening(context) as port, pytest.raises(ssl.SSLCertVerificationError):
        connect(port, site(state.ca))


def private_key(data: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(data, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def own(folder: Path, hosts: list[str]) -> tuple[Path, Path, Path]:
    """The provider's own chain, key and root, with an intermediate authority between."""
    root, middle = new_authority(), new_authority()
    certificate, key = new_server(middle, hosts)
    chain = pem(certificate) + pem(certificates.cross_certificate(middle, root))
    paths = folder / "chain.pem", folder / "key.pem", folder / "root.pem"
    for path, text in zip(paths, (chain, key_pem(key), pem(root.certificate)), strict=True):
        path.write_text(text)
        path.chmod(0o600)
    return paths


def test_own_certificates_serve_and_are_tried_out_first(tmp_path: Path) -> None:
    chain, key, root = own(tmp_path, ["fedser.example.org"])
    found = tls.own_certificates(chain, key, root, ["fedser.example.org"])
    with listening(tls.server_context(found)) as port:
        assert connect(port, site(found.ca), "fedser.example.org")[0] == b"hello"
    with pytest.raises(ConfigError, match="localhost"):
        tls.own_certificates(chain, key, root, ["fedser.example.org", "localhost"])
    root.write_text(pem(new_authority().certificate))
    with pytest.raises(ConfigError, match="would refuse"):
        tls.own_certificates(chain, key, root, ["fedser.example.org"])


def test_own_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    chain, key, root = own(tmp_path, ["localhost"])
    key.chmod(0o604)
    with pytest.raises(ConfigError, match="open to every user"):
        tls.own_certificates(chain, key, root, ["localhost"])
    key.chmod(0o600)
    for path in (chain, key, root):
        text = path.read_text()
        path.write_text("damaged")
        with pytest.raises(ConfigError):
            tls.own_certificates(chain, key, root, ["localhost"])
        path.unlink()
        with pytest.raises(ConfigError):
            tls.own_certificates(chain, key, root, ["localhost"])
        path.write_text(text)
        path.chmod(0o600)
    plain, locked = private_key(key.read_bytes()), BestAvailableEncryption(b"secret")
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    with pytest.raises(ConfigError, match="cannot be used"):  # and nobody is asked for a passphrase
        tls.own_certificates(chain, key, root, ["localhost"])
    key.write_text(key_pem(plain))
    two = tmp_path / "two.pem"
    two.write_text(root.read_text() * 2)
    with pytest.raises(ConfigError, match="one PEM certificate"):
        tls.own_certificates(chain, key, two, ["localhost"])
