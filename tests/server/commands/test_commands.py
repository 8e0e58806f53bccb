"""The provider's commands as a person and a script run them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from fedser_server.cli import app
from fedser_server.state import State
from typer.testing import CliRunner

from fedser.bundle import keys
from fedser.errors import (
    ConfigError,
    EnrolmentError,
    FedserError,
    KeyFileError,
    OutputError,
    StateError,
    UsageError,
)
from fedser.federation import trust
from fedser.federation.invitation import Invitation


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "provider"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def result(*words: object) -> dict[str, Any]:
    """The one JSON object of a command that has to succeed."""
    done = call(*words, "--format", "json")
    assert done.exit_code == 0, done.exception or done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def refused(kind: type[FedserError], *words: object) -> FedserError:
    done = call(*words)
    assert isinstance(done.exception, kind), done.output
    assert done.exception.hint
    return done.exception


def test_the_first_invitation_makes_the_state(folder: Path, tmp_path: Path) -> None:
    told = result("invite", "site-a", "--out", tmp_path / "a.invite", "--state", folder, "--study", "trial")
    made = Invitation.read(tmp_path / "a.invite")
    state = State.open(folder)
    assert (made.study, made.site, made.address) == ("trial", "site-a", "localhost:9443")
    assert (made.ca, made.order_key) == (state.ca, state.order_key.public_hex)
    assert told["ca_sha256"] == made.ca_sha256
    assert made.token not in json.dumps(told)
    assert stat.S_IMODE((tmp_path / "a.invite").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert abs(made.expires - state.roster.entries()["site-a"].invited - 7 * 86_400) < 2


def test_the_token_is_in_the_file_alone(folder: Path, tmp_path: Path) -> None:
    done = call("invite", "site-a", "--out", tmp_path / "a.invite", "--state", folder)
    assert done.exit_code == 0
    token = Invitation.read(tmp_path / "a.invite").token
    assert token not in done.output
    assert all(token.encode() not in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_bundles_key_is_the_last_one_else_the_users_else_open(folder: Path, tmp_path: Path) -> None:
    def invited(name: str, *more: object) -> str | None:
        call("invite", name, "--out", tmp_path / name, "--state", folder, *more)
        return Invitation.read(tmp_path / name).bundle_key

    assert invited("a") is None
    other = keys.create(tmp_path / "other")
    assert invited("b", "--signer", tmp_path / "other.pub") == other.public_hex
    assert invited("c") == other.public_hex
    own = keys.create(keys.default_path())
    elsewhere = tmp_path / "second"
    call("invite", "d", "--out", tmp_path / "d", "--state", elsewhere)
    assert Invitation.read(tmp_path / "d").bundle_key == own.public_hex
    assert State.open(folder).file.bundle_keys == (other.public_hex,)


def test_an_address_stays_and_gets_into_the_certificate(folder: Path, tmp_path: Path) -> None:
    call("invite", "a", "--out", tmp_path / "a", "--state", folder, "--address", "ser.example.org:443")
    call("invite", "b", "--out", tmp_path / "b", "--state", folder)
    assert Invitation.read(tmp_path / "b").address == "ser.example.org:443"
    assert "ser.example.org" in result("renew", "certificate", "--state", folder)["hosts"]


def test_what_invite_refuses_leaves_no_trace(folder: Path, tmp_path: Path) -> None:
    call("invite", "site-a", "--out", tmp_path / "a", "--state", folder)
    before = (folder / "sites.json").read_bytes()
    taken = ("--out", tmp_path / "x", "--state", folder)
    refused(EnrolmentError, "invite", "site-a", *taken)
    refused(EnrolmentError, "invite", "../site", *taken)
    refused(ConfigError, "invite", "site-b", "--address", "nowhere", *taken)
    refused(KeyFileError, "invite", "site-b", "--signer", "zz", *taken)
    refused(ConfigError, "invite", "site-b", "--ca", tmp_path / "a", *taken)
    refused(StateError, "invite", "site-b", "--study", "other", *taken)
    refused(OutputError, "invite", "site-b", "--out", tmp_path / "a", "--state", folder)
    assert (folder / "sites.json").read_bytes() == before
    assert not (tmp_path / "x").exists()


def test_an_invitation_that_cannot_be_written_is_void(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(OutputError, "invite", "site-a", "--out", tmp_path / "file" / "a.invite", "--state", folder)
    assert State.open(folder).roster.entries()["site-a"].status == "revoked"
    assert call("invite", "site-a", "--out", tmp_path / "a.invite", "--state", folder).exit_code == 0


def test_a_folder_open_to_others_is_refused(folder: Path, tmp_path: Path) -> None:
    call("invite", "site-a", "--out", tmp_path / "a", "--state", folder)
    folder.chmod(0o755)
    for words in (("sites",), ("revoke", "site-a"), ("renew", "ca"), ("backup", tmp_path / "b.tar")):
        assert refused(StateError, *words, "--state", folder).hint == f"Run: chmod 700 '{folder}'"


def test_invitations_at_once_are_all_good(folder: Path, tmp_path: Path) -> None:
    """Six processes meet an empty state folder at the same moment; two of them want the same name."""
    names = ["a", "b", "c", "d", "same", "same"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "fedser_server", "invite", name, "--out", str(tmp_path / f"{number}.invite")),
                *("--state", str(folder), "--address", f"host-{number}:443"),
            ],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(names)
    ]
    ended = [(process.communicate()[1], process.returncode) for process in started]
    assert sorted(code for _, code in ended) == [0, 0, 0, 0, 0, 34], ended
    assert not any("Traceback" in text for text, _ in ended)
    state = State.open(folder)
    assert set(state.roster.entries()) == set(names)
    made = [Invitation.read(path) for path in sorted(tmp_path.glob("*.invite"))]
    assert {invitation.order_key for invitation in made} == {state.order_key.public_hex}
    assert {invitation.ca for invitation in made} == {state.ca}
    assert len({invitation.address for invitation in made}) == len({invitation.token for invitation in made}) == 5
    assert {invitation.host for invitation in made} <= set(state.hosts)


def test_sites_and_revoke(folder: Path, tmp_path: Path) -> None:
    for name in ("site-a", "site-b"):
        call("invite", name, "--out", tmp_path / name, "--state", folder)
    State.open(folder).roster.invite("late", -1)
    assert result("revoke", "site-b", "--state", folder)["status"] == "revoked"
    listed = result("sites", "--state", folder)
    assert [(site["site"], site["status"]) for site in listed["sites"]] == [
        ("site-a", "invited"),
        ("site-b", "revoked"),
        ("late", "expired"),
    ]
    assert "token" not in json.dumps(listed)
    assert "key" not in json.dumps(listed)
    shown = call("sites", "--state", folder).stdout.splitlines()
    assert shown[2].split()[:2] == ["site-a", "invited"]
    refused(EnrolmentError, "revoke", "nobody", "--state", folder)


def test_commands_make_no_state_by_accident(tmp_path: Path) -> None:
    for words in (("sites",), ("revoke", "a"), ("renew", "ca"), ("backup", tmp_path / "b.tar")):
        refused(StateError, *words, "--state", tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []


def test_sites_of_an_empty_roster_say_what_to_do(folder: Path) -> None:
    State.open(folder)
    assert "invite NAME" in call("sites", "--state", folder).stdout


def test_renewals_lose_no_site(folder: Path, tmp_path: Path) -> None:
    call("invite", "site-a", "--out", tmp_path / "a", "--state", folder)
    pinned = Invitation.read(tmp_path / "a")
    key = result("renew", "order-key", "--state", folder)["order_key"]
    authority = result("renew", "ca", "--state", folder)
    assert authority["authorities_left_behind"] == 0
    trusted = trust.walk(pinned.order_key, State.open(folder).trust, ca=pinned.ca)
    assert trusted.order_key == key
    assert trusted.cas == (pinned.ca, State.open(folder).ca)
    call("invite", "site-b", "--out", tmp_path / "b", "--state", folder)
    later = Invitation.read(tmp_path / "b")
    assert (later.order_key, later.ca_sha256) == (key, authority["ca_sha256"])


def test_the_order_key_is_not_renewed_under_a_running_node(folder: Path) -> None:
    state = State.open(folder)
    with state.lock():
        refused(StateError, "renew", "order-key", "--state", folder)
        assert call("renew", "certificate", "--state", folder).exit_code == 0
    assert call("renew", "password", "--state", folder).exit_code == 2


def test_own_certificates_are_pinned_and_not_renewed_here(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "root.pem"
    own.write_text(State.open(tmp_path / "elsewhere").ca)
    call("invite", "site-a", "--out", tmp_path / "a", "--state", folder, "--ca", own)
    assert Invitation.read(tmp_path / "a").ca == own.read_text()
    refused(UsageError, "renew", "ca", "--state", folder)
    refused(UsageError, "renew", "certificate", "--state", folder)
    assert call("renew", "order-key", "--state", folder).exit_code == 0


@pytest.mark.parametrize("command", ["invite", "sites", "revoke", "renew", "backup", "restore", ""])
def test_help_needs_neither_torch_nor_the_node(command: str) -> None:
    code = (
        "import sys\nfrom fedser_server.cli import main\n"
        f"sys.argv = ['fedser-server', *'{command}'.split(), '--help']\n"
        "try: main()\nexcept SystemExit as ended: assert ended.code == 0\n"
        "print([m for m in ('torch', 'flwr', 'numpy', 'starlette', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_error_is_an_exit_code_and_one_json_object(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedser_server", "sites", "--state", str(tmp_path / "x"), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == json.loads(done.stdout)["error"]["code"] == 35
    assert "Traceback" not in done.stderr
