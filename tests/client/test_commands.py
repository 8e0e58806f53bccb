"""The command line: quick help, exit codes, one JSON object, and a chain that shows what was changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fedser_client.cli import app
from typer.testing import CliRunner

from fedser.errors import PolicyError, StateError, UsageError
from fedser.federation.audit import AuditLog


def call(*arguments: object) -> Any:
    """Run a command in this process; an error of fedser comes through as it is."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def logged(folder: Any, settings: Any) -> Any:
    """A joined folder whose log holds an enrolment, an update and a refusal."""
    folder.remember(settings)
    log = AuditLog(folder.file("audit.jsonl"))
    log.append({"time": 1, "event": "enrolment", "bytes": 700})
    log.append({"time": 2, "event": "update", "round": 1, "bytes": 2000, "norm": 1.25, "order": "ab" * 32})
    log.append({"time": 3, "event": "refusal", "code": "RADIUS", "order": "cd" * 32})
    return folder


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import fedser_client.cli, sys;"
        "print([m for m in ('torch', 'flwr', 'sklearn', 'numpy', 'httpx') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert loaded.stdout.strip() == "[]"
    for command in ("join", "run", "status", "audit", "fingerprint", "leave"):
        assert call(command, "--help").exit_code == 0


def test_an_audit_prints_what_left(logged: Any) -> None:
    told = json.loads(call("audit", "--state", logged.path, "--format", "json").stdout)
    assert [record["event"] for record in told["records"]] == ["enrolment", "update", "refusal"]
    assert (told["orders"], told["bytes"], told["refused"]) == (1, 2700, {"RADIUS": 1})
    assert told["head"] == told["records"][-1]["hash"]
    text = call("audit", "--state", logged.path).stdout
    assert "1970-01-01 00:00:02" in text
    assert "abababababababab" in text
    assert told["head"] in text


@pytest.mark.parametrize("line", [0, 1, 2])
def test_a_changed_line_ends_the_audit_with_exit_code_31(client: Any, logged: Any, line: int) -> None:
    path = logged.file("audit.jsonl")
    lines = path.read_text().splitlines()
    lines[line] = lines[line].replace('"time": ', '"time": 9')
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(PolicyError, match=f"Line {line + 1} ") as caught:
        call("audit", "--state", logged.path)
    assert caught.value.exit_code == 31
    if line == 1:  # and once as a user sees it
        process = client("audit", "--state", logged.path, "--format", "json")
        out, err = process.communicate(timeout=60)
        assert process.returncode == 31
        assert json.loads(out)["error"]["name"] == "PolicyError"
        assert "Traceback" not in err


def test_status_of_a_stopped_site(logged: Any) -> None:
    logged.remember(logged.settings().model_copy(update={"rounds": 5}))
    logged.tell(phase="waiting", orders=1, refusals=1, bytes=2000, round=1)
    told = json.loads(call("status", "--state", logged.path, "--format", "json").stdout)
    assert (told["phase"], told["running"], told["round"], told["enrolled"]) == ("stopped", None, 1, False)
    assert "token" not in json.dumps(told)
    with logged.lock():
        assert json.loads(call("status", "--state", logged.path, "--format", "json").stdout)["phase"] == "waiting"


@pytest.mark.parametrize("command", ["run", "status", "audit", "fingerprint", "leave"])
def test_a_folder_that_never_joined_is_refused(command: str, tmp_path: Path) -> None:
    with pytest.raises(StateError):
        call(command, "--state", tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_dry_run_is_told_in_words(desk: Any, invitation: Path, recordings: Path, tmp_path: Path) -> None:
    desk.rounds = 5
    told = call("join", invitation, "--data", recordings, "--state", tmp_path / "state", "--dry-run").stdout
    assert "nothing was sent but one GET" in told
    assert "head.bias" in told
    assert "never leaves:" in told
    assert "12 utterances of 2 speakers" in told


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_the_digest_of_the_key_that_signs_replies(folder: Any, settings: Any) -> None:
    import hashlib

    folder.remember(settings)
    told = json.loads(call("fingerprint", "--state", folder.path, "--format", "json").stdout)
    public = folder.file("keys/reply-key.pub").read_text().strip()
    assert told["fingerprint"] == hashlib.sha256(bytes.fromhex(public)).hexdigest()
    assert call("fingerprint", "--state", folder.path).stdout.split()[1:] == [
        told["fingerprint"][start : start + 4] for start in range(0, 64, 4)
    ]
    status = json.loads(call("status", "--state", folder.path, "--format", "json").stdout)
    assert status["fingerprint"] == told["fingerprint"]


def test_a_peers_fingerprint_is_compared_with_the_policy(folder: Any, settings: Any, tmp_path: Path) -> None:
    path, right = tmp_path / "policy.yaml", "ab" * 32
    path.write_text(f"privacy:\n  masking:\n    peers:\n      site-b: '{right}'\n")
    folder.remember(settings.model_copy(update={"policy": path}))
    aloud = " ".join(right[start : start + 4] for start in range(0, 64, 4)).upper()
    given = ("fingerprint", "--state", folder.path, "--peer", "site-b", "--told")
    assert json.loads(call(*given, aloud, "--format", "json").stdout)["equal"]
    for peer, told in (("site-b", "cd" * 32), ("site-c", right)):
        with pytest.raises(PolicyError):
            call("fingerprint", "--state", folder.path, "--peer", peer, "--told", told)
    with pytest.raises(UsageError):
        call("fingerprint", "--state", folder.path, "--peer", "site-b")
