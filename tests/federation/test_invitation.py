"""The invitation file: whole, for one protocol, in time, and for its owner only."""

from __future__ import annotations

import contextlib
import json
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from fedser_server import certificates
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedser.errors import ConfigError, EnrolmentError, FedserError
from fedser.federation.invitation import Invitation, certificate_digest, split_address

CA = certificates.pem(certificates.new_authority().certificate)
TOKEN = "A1-_" * 5 + "zz"


def values(**changes: Any) -> dict[str, Any]:
    made = {
        "fedser_invitation": 1,
        "protocol": 1,
        "study": "trial",
        "site": "site-a",
        "address": "localhost:9443",
        "ca": CA,
        "ca_sha256": certificate_digest(CA),
        "bundle_key": "ab" * 32,
        "order_key": "cd" * 32,
        "token": TOKEN,
        "expires": int(time.time()) + 60,
    }
    return {**made, **changes}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_what_is_written_is_read_and_is_the_owners_alone(tmp_path: Path) -> None:
    invitation = Invitation.model_validate(values())
    invitation.write(tmp_path / "a.invite")
    assert Invitation.read(tmp_path / "a.invite") == invitation
    assert stat.S_IMODE((tmp_path / "a.invite").stat().st_mode) == 0o600
    assert TOKEN not in repr(invitation)
    assert (invitation.host, invitation.port) == ("localhost", 9443)


def test_an_expired_one_is_refused_but_a_joined_site_reads_it(tmp_path: Path) -> None:
    path = written(tmp_path / "a.invite", values(expires=1_600_000_000))
    with pytest.raises(EnrolmentError, match="2020-09-13"):
        Invitation.read(path)
    assert Invitation.read(path, now=0).site == "site-a"


def test_another_protocol_is_refused_with_both_versions(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match=r"version 2.*version 1"):
        Invitation.read(written(tmp_path / "a.invite", values(protocol=2)))
    with pytest.raises(EnrolmentError, match=r"version 9.*version 1"):  # before its unknown keys are looked at
        Invitation.read(written(tmp_path / "b.invite", {"fedser_invitation": 9, "new": True}))


OTHER_CA = certificates.pem(certificates.new_authority().certificate)
DAMAGED: dict[str, object] = {
    "empty": "",
    "no JSON": json.dumps(values())[:-40],
    "a list": [values()],
    "deep": "[" * 20_000,
    "something else": {"name": "x"},
    "too large": json.dumps(values()) + " " * 40_000,
    "an unknown key": values(extra=1),
    "a missing key": {name: value for name, value in values().items() if name != "token"},
    "a short token": values(token="abc"),  # noqa: S106
    "a name with a slash": values(site="../a"),
    "a study of no name": values(study=""),
    "an address without a port": values(address="localhost"),
    "an address with a path": values(address="host/x:1"),
    "a port too large": values(address="localhost:70000"),
    "a certificate that was swapped": values(ca=OTHER_CA),
    "two certificates": values(ca=CA + OTHER_CA),
    "no certificate": values(ca="hello"),
    "a key in capitals": values(order_key="CD" * 32),
    "an endless expiry": values(expires=1e400),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_one_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Invitation.read(written(tmp_path / "a.invite", DAMAGED[name]))
    assert caught.value.hint
    assert TOKEN not in str(caught.value)


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(FedserError):
            Invitation.read(path)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("a.example:1", "a.example", 1), ("10.0.0.7:9443", "10.0.0.7", 9443), ("[::1]:65535", "::1", 65_535)],
)
def test_addresses(address: str, host: str, port: int) -> None:
    assert split_address(address) == (host, port)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=20),
            lambda inner: st.dictionaries(st.sampled_from([*values(), "x"]), inner) | st.lists(inner),
            max_leaves=20,
        ).map(lambda value: json.dumps(value).encode()),
        st.dictionaries(
            st.sampled_from(list(values())), st.text(max_size=70) | st.integers() | st.floats() | st.none()
        ).map(lambda changes: json.dumps(values(**changes)).encode()),
    )
)
def test_whatever_a_file_holds_only_our_own_errors_come_out(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "fuzz").write_bytes(data)
    with contextlib.suppress(FedserError):
        Invitation.read(tmp_path / "fuzz")
