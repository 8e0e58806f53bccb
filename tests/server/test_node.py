"""The provider's node as one process: what it refuses to start with, what it tells, how it ends and goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_server import journal, node, tls
from fedser_server.checkpoint import Checkpoint, Checkpoints
from fedser_server.cli import app
from fedser_server.node import NodeSettings
from fedser_server.settings import StudySettings
from fedser_server.state import State
from safetensors.torch import load_file
from typer.testing import CliRunner

from fedser import bundle as bundles
from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.compute import generator
from fedser.errors import (
    BundleError,
    ConfigError,
    EnrolmentError,
    FedserError,
    NetworkError,
    OutputError,
    QuorumError,
    SignatureError,
    StateError,
    UsageError,
)
from fedser.federation import enrolment
from fedser.federation.policy import Policy
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, ServerState

Server = Callable[..., subprocess.Popen[str]]


def study(**changes: Any) -> StudySettings:
    values: dict[str, Any] = {"sites": 2, "rounds": 2, "schedule": Schedule(steps=6, batch_size=16)}
    return StudySettings(**(values | changes))


@pytest.fixture
def folder(tmp_path: Path, signed: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    State.open(tmp_path / "provider", study="trial").remember(bundle_key=signed.signer)
    return tmp_path / "provider"


@pytest.fixture
def plain(signed: Any) -> NodeSettings:
    return NodeSettings(bundle=signed.path, port=0, hold=1.0, wait=0.3)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the real ``fedser-server`` in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def call(*words: object) -> subprocess.Popen[str]:
        environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-m", "fedser_server", *map(str, words)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def told(folder: Path, command: str = "status", *words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [command, "--state", str(folder), "--format", "json", *words])
    assert done.exit_code == 0, done.exception or done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def until(there: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end, what
        time.sleep(0.02)


# --- what it does not start with -------------------------------------------------------------------------------------


def test_a_port_that_is_taken(folder: Path, plain: NodeSettings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for rounds in (0, 2):
            with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be listened on") as caught:
                node.start(folder, study(rounds=rounds), NodeSettings(**(vars(plain) | {"port": port})))
            assert caught.value.exit_code == 2
    assert journal.status(folder)["phase"] == "stopped"


def test_a_bundle_of_another_signer_than_the_invitations_name(tmp_path: Path, plain: NodeSettings) -> None:
    State.open(tmp_path / "provider").remember(bundle_key="1" * 64)
    with pytest.raises(SignatureError, match="other keys") as caught:
        node.start(tmp_path / "provider", study(), plain)
    assert caught.value.exit_code == 21


def test_a_bundle_that_its_named_signer_did_not_sign(folder: Path, plain: NodeSettings) -> None:
    with pytest.raises(BundleError) as caught:
        node.start(folder, study(), NodeSettings(**(vars(plain) | {"signer": "2" * 64})))
    assert caught.value.exit_code == 21


def test_a_bundle_that_was_changed(folder: Path, plain: NodeSettings, signed: Any, tmp_path: Path) -> None:
    data = bytearray(signed.path.read_bytes())
    data[-1] ^= 1
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(data)
    copy.with_name("copy.safetensors.sig").write_text(Path(f"{signed.path}.sig").read_text())
    with pytest.raises(SignatureError):
        node.start(folder, study(), NodeSettings(**(vars(plain) | {"bundle": copy})))


def test_other_settings_or_another_bundle_than_the_checkpoint(folder: Path, plain: NodeSettings) -> None:
    Checkpoints(folder, "trial", "0" * 64).save(Checkpoint(1, torch.ones(3), ServerState()))
    before = (folder / "checkpoints" / "round-000001.safetensors").read_bytes()
    with pytest.raises(StateError, match="other settings") as caught:
        node.start(folder, study(), plain)
    assert caught.value.exit_code == 35
    assert (folder / "checkpoints" / "round-000001.safetensors").read_bytes() == before


def test_a_damaged_checkpoint_or_flight(folder: Path, plain: NodeSettings) -> None:
    path = Checkpoints(folder, "trial", "0" * 64).save(Checkpoint(1, torch.ones(3), ServerState()))
    path.write_bytes(b"torn")
    with pytest.raises(StateError, match="damaged"):
        node.start(folder, study(), plain)


def test_sites_that_do_not_come(folder: Path, plain: NodeSettings) -> None:
    with pytest.raises(QuorumError, match="0 of 2 sites") as caught:
        node.start(folder, study(), plain)
    assert caught.value.exit_code == 32
    assert journal.status(folder)["phase"] in ("failed", "stopped")


def test_half_of_the_own_certificates(folder: Path, plain: NodeSettings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="three files"):
        node.start(folder, study(), NodeSettings(**(vars(plain) | {"ca": tmp_path / "ca.pem"})))


@pytest.mark.parametrize("room", [0, 3000])
def test_a_full_disk(folder: Path, plain: NodeSettings, room: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))  # no file grows beyond it
    try:
        with pytest.raises(OutputError, match="file too large|cannot be") as caught:
            node.start(folder, study(), plain)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.hint
    with pytest.raises(QuorumError):  # with space again it starts as if nothing had been
        node.start(folder, study(), plain)


@pytest.fixture
def read_only(folder: Path) -> Iterator[Path]:
    """The state folder on a file system that takes no writes; root needs a mount for it."""
    if os.getuid() != 0:
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    bind = ["mount", "--bind", folder, folder]
    again = ["mount", "-o", "remount,ro,bind", folder]
    if any(subprocess.run(command, capture_output=True).returncode for command in (bind, again)):
        subprocess.run(["umount", folder], capture_output=True)
        pytest.skip("root writes to read-only folders, and nothing can be mounted here")
    yield folder
    subprocess.run(["umount", folder], capture_output=True)


def test_a_read_only_state(read_only: Path, plain: NodeSettings) -> None:
    with pytest.raises((StateError, OutputError), match="denied|read-only") as caught:
        node.start(read_only, study(), plain)
    assert caught.value.hint


@pytest.mark.parametrize(
    "change", [{"quorum": 3}, {"rounds": -1}, {"sites": 0}, {"personal": 1.0}, {"deadline": 0}, {"unknown": 1}]
)
def test_settings_that_cannot_be(change: dict[str, Any]) -> None:
    from fedser.config import validate

    with pytest.raises(ConfigError):
        validate(StudySettings, {"sites": 2} | change, "the study")


# --- a whole study ---------------------------------------------------------------------------------------------------


class Member:
    """An invited site that enrols by the route and answers over a line, in a thread."""

    def __init__(self, folder: Path, name: str, bundle: Any, number: int) -> None:
        self.state, self.name = State.open(folder), name
        self.token = self.state.roster.invite(name, 3600.0)
        self.node_key = ec.generate_private_key(ec.SECP384R1())
        self.reply_key = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
        model = bundle.classifier()
        x = torch.randn(24, *model.shape, generator=generator("node", number))
        order_key = self.state.order_key.public_hex
        self.site = Site(name, "trial", LocalData(model, x, 2), Policy(), self.reply_key, order_key)
        self.error: list[BaseException] = []

    def enrol(self, port: int) -> int:
        import httpx

        request = enrolment.request("trial", self.name, self.token, self.node_key, self.reply_key)
        context = tls.client_context([self.state.ca])
        with httpx.Client(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as client:
            return client.post("/v1/fedser/enrol", json=request.model_dump()).status_code

    def take_part(self, port: int, lock: threading.Lock) -> threading.Thread:
        from fedser.federation.flower.site import Line

        def work() -> None:
            try:
                context = tls.client_context([self.state.ca])
                with Line(f"localhost:{port}", context, self.node_key, limit=1 << 22) as line:
                    while not self.site.state.personal:
                        order = line.receive()
                        if order is not None:
                            with lock:
                                reply = self.site.answer(order.data)
                            line.reply(order, reply)
            except (NetworkError, EnrolmentError) as error:
                self.error.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread


def run(folder: Path, chosen: StudySettings, settings: NodeSettings) -> tuple[threading.Thread, list[Any]]:
    result: list[Any] = []

    def work() -> None:
        try:
            result.append(node.start(folder, chosen, settings))
        except FedserError as error:
            result.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread, result


def test_a_study_from_invitation_to_the_joint_model(folder: Path, plain: NodeSettings, signed: Any) -> None:
    bundle = bundles.read(signed.path, signer=signed.signer)
    settings = NodeSettings(**(vars(plain) | {"wait": 60.0}))
    members = [Member(folder, f"site-{n}", bundle, n) for n in (1, 2)]
    thread, result = run(folder, study(), settings)
    until(lambda: journal.status(folder).get("phase") == "waiting", "the node waits")
    port = journal.status(folder)["port"]
    assert [member.enrol(port) for member in members] == [200, 200]
    lock = threading.Lock()
    threads = [member.take_part(port, lock) for member in members]
    thread.join(60)
    for other in threads:
        other.join(20)
    assert not any(member.error for member in members)
    (told_last,) = result
    assert (told_last["study"], told_last["rounds"]) == ("trial", 2)
    joint = load_file(folder / "joint.safetensors")
    assert sum(tensor.numel() for tensor in joint.values()) == told_last["values"]
    assert (folder / "joint.safetensors").stat().st_mode & 0o077 == 0
    now = journal.status(folder)
    assert (now["phase"], now["round"], now["finished"]) == ("done", 2, ["site-1", "site-2"])
    # nothing that is written down holds a key or a token
    written = (folder / "events.jsonl").read_text() + (folder / "status.json").read_text()
    assert all(member.token not in written for member in members)
    assert "BEGIN" not in written
    # once more: it is done, and says so at once
    thread, again = run(folder, study(), plain)
    thread.join(60)
    assert again == result
    # with other settings it is another study
    thread, other_study = run(folder, study(seed=9), plain)
    thread.join(60)
    assert isinstance(other_study[0], StateError)
    assert journal.status(folder)["phase"] == "stopped"


def test_publish_only_has_neither_enrolment_nor_fleet(folder: Path, signed: Any, server: Server) -> None:
    import httpx

    process = server("start", "--state", folder, "--bundle", signed.path, "--rounds", "0", "--port", "0")
    until(lambda: journal.status(folder).get("phase") == "publishing" or process.poll() is not None, "publishing")
    port, context = journal.status(folder)["port"], tls.client_context([State.open(folder).ca])
    with httpx.Client(base_url=f"https://localhost:{port}", verify=context, trust_env=False) as client:
        answer = client.get("/v1/fedser/bundle")
        assert answer.content == signed.path.read_bytes()
        assert answer.headers["fedser-rounds"] == "0"
        for path in ("/v1/fedser/enrol", "/v1/fleet/activate-node", "/v1/fleet/pull-messages"):
            assert client.post(path).status_code == 404
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


# --- as processes ----------------------------------------------------------------------------------------------------


def test_status_in_every_phase_and_stop_gracefully_then_firmly(folder: Path, signed: Any, server: Server) -> None:
    found = told(folder)
    assert (found["phase"], found["running"], found["round"]) == ("new", None, 0)
    nothing = CliRunner().invoke(app, ["stop", "--state", str(folder)]).exception
    assert isinstance(nothing, StateError)
    assert "No node runs" in str(nothing)

    words = ("start", "--state", folder, "--bundle", signed.path, "--sites", "2", "--rounds", "2", "--port", "0")
    first = server(*words)
    until(lambda: journal.status(folder).get("phase") == "waiting" or first.poll() is not None, "waiting")
    found = told(folder)
    assert (found["phase"], found["running"], found["rounds"]) == ("waiting", first.pid, 2)

    second = server(*words)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 35
    assert str(first.pid) in err
    assert "Traceback" not in err
    assert journal.status(folder)["phase"] == "waiting"  # the one that was refused changes nothing

    assert told(folder, "stop") == {"process": first.pid, "how": "stopped"}
    _, err = first.communicate(timeout=30)
    assert first.returncode == 143
    assert "Traceback" not in err
    assert told(folder)["phase"] == "stopped"

    third = server(*words)
    until(lambda: journal.status(folder).get("phase") == "waiting" or third.poll() is not None, "waiting again")
    third.send_signal(signal.SIGSTOP)  # it hears nothing any more
    assert told(folder, "stop", "--patience", "0.3") == {"process": third.pid, "how": "killed"}
    assert third.wait(30) == -signal.SIGKILL
    found = told(folder)
    assert (found["phase"], found["running"]) == ("interrupted (waiting)", None)


@pytest.mark.parametrize(
    ("phase", "shown"),
    [("round", "interrupted (round)"), ("failed", "failed"), ("done", "done"), ("x", "interrupted (x)")],
)
def test_status_of_a_node_that_is_gone(folder: Path, phase: str, shown: str) -> None:
    book = journal.Journal(folder)
    book.tell(phase=phase, round=2, rounds=5, answers={"site-1": {"seconds": 1.5, "bytes": 1000}})
    book.record({"event": "refused", "site": "site-1", "why": "another run"})
    State.open(folder).roster.invite("site-1", 60.0)
    found = told(folder)
    assert found["phase"] == shown
    assert found["sites"][0]["seconds"] == 1.5
    assert found["refusals"][-1]["why"] == "another run"
    text = CliRunner().invoke(app, ["status", "--state", str(folder)])
    assert "round 2 of 5" in text.stdout
    assert "site-1: another run" in text.stdout


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\xff"])
def test_a_damaged_status_is_no_status(folder: Path, text: str) -> None:
    path = folder / "status.json"
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    assert journal.status(folder) == {}
    journal.Journal(folder).tell(phase="x")
    assert journal.status(folder)["phase"] == "x"


def test_the_events_do_not_grow_without_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_LARGEST", 2000)
    book = journal.Journal(folder)
    for number in range(200):
        book.record({"event": "refused", "why": "x" * 50, "number": number})
    files = sorted(path.name for path in folder.glob("events*"))
    assert files == ["events.jsonl", "events.old.jsonl"]
    assert sum((folder / name).stat().st_size for name in files) < 5000
    assert journal.tail(folder, 1)[0]["number"] == 199


def test_a_line_feed_in_an_event_is_one_event(folder: Path) -> None:
    journal.Journal(folder).record({"event": "refused", "why": 'x\n{"event": "round"}\r\u2028\x85y', "peer": "1"})
    (event,) = journal.tail(folder, 10)
    assert event["event"] == "refused"
