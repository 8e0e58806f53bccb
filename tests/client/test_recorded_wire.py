"""Everything that a real site sends in a study, recorded where it arrives in the provider, before it is parsed."""

from __future__ import annotations

import base64
import copy
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from fedser_server import journal, node
from fedser_server.cli import app
from fedser_server.guard import Guard
from fedser_server.node import NodeSettings
from fedser_server.settings import StudySettings
from fedser_server.state import State
from typer.testing import CliRunner

from fedser import bundle as bundles
from fedser.adapt import Schedule, make
from fedser.errors import FedserError
from fedser.federation import wire
from fedser.federation.enrolment import EnrolRequest
from fedser.federation.flower import environment
from fedser.federation.layout import elements
from fedser.federation.policy import Policy
from fedser.federation.provider import travelling
from fedser.federation.schema import Refusal, Update

environment.prepare(Path("/nonexistent"))

from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2  # noqa: E402

from fedser.federation.flower import letter  # noqa: E402

SITE, FOLDER, SPEAKERS, FILE = "site-1", "canary-ward-seven", ("canary-mueller", "canary-schmidt"), "canary-visit"
CANARIES = ("canary", "recordings", "speaker", ".wav", "ward", "mueller", "schmidt", "visit", "policy.yaml", "manifest")
ROUNDS = 2

#: Every header that a site sends, on any route.
HEADERS = {
    "host",
    "accept",
    "accept-encoding",
    "connection",
    "user-agent",
    "content-type",
    "content-length",
    "if-none-match",
    "flwr-timestamp",
    "flwr-public-key",
    "flwr-signature",
}
FLEET = {
    "activate-node": fleet_pb2.ActivateNodeRequest,
    "deactivate-node": fleet_pb2.DeactivateNodeRequest,
    "send-node-heartbeat": heartbeat_pb2.SendNodeHeartbeatRequest,
    "pull-messages": fleet_pb2.PullMessagesRequest,
    "pull-object": message_pb2.PullObjectRequest,
    "push-messages": fleet_pb2.PushMessagesRequest,
    "push-object": message_pb2.PushObjectRequest,
}
KINDS = {"Message", "RecordDict", "ConfigRecord", "ArrayRecord", "Array", "ArrayChunk"}


@dataclass
class Request:
    """One request as it came: raw path, raw headers, raw body."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""

    @property
    def raw(self) -> bytes:
        head = b"\n".join(name + b": " + value for name, value in self.headers)
        return self.path.encode() + b"\n" + head + b"\n\n" + self.body


@dataclass
class Recorded:
    """A whole study's requests, and what is needed to read them."""

    requests: list[Request]
    reply_key: str
    layout: Any
    private: tuple[str, ...]


@pytest.fixture(scope="module")
def recorded(
    signed: Any, recordings: Path, client: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Recorded:
    tmp_path = tmp_path_factory.mktemp("recorded")
    requests: list[Request] = []

    class Recording(Guard):
        """The node's guard, with a recorder before it."""

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            request = Request(scope["method"], scope["raw_path"].decode("latin-1"), list(scope["headers"]))
            requests.append(request)

            async def listening() -> Any:
                message = await receive()
                request.body += message.get("body", b"")
                return message

            await super().__call__(scope, listening, send)

    files = sorted(path for path in recordings.rglob("*.wav"))
    for number, path in enumerate(files):
        place = tmp_path / FOLDER / SPEAKERS[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place / f"{FILE}-{number:02d}.wav")
    folder, state = tmp_path / "provider", tmp_path / "canary-state"
    State.open(folder, study="trial").remember(bundle_key=signed.signer)
    study = StudySettings(sites=1, rounds=ROUNDS, schedule=Schedule(steps=6, batch_size=16))
    settings = NodeSettings(bundle=signed.path, port=0, hold=1.0, wait=60.0)
    failed: list[FedserError] = []

    def provide() -> None:
        try:
            node.start(folder, study, settings)
        except FedserError as error:
            failed.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "Guard", Recording)
        thread = threading.Thread(target=provide, daemon=True)
        thread.start()
        while not failed and journal.status(folder).get("phase") != "waiting":
            time.sleep(0.02)
        address = f"localhost:{journal.status(folder)['port']}"
        words = ["invite", SITE, "--out", tmp_path / "a.invite", "--state", folder, "--address", address]
        assert CliRunner().invoke(app, [str(word) for word in words]).exit_code == 0
        words = ["join", tmp_path / "a.invite", "--data", tmp_path / FOLDER, "--state", state, "--device", "cpu"]
        process = client(*words, "--speaker-from", "parent", "--patience", "30")
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        thread.join(30)
    assert not failed
    entry = State.open(folder).roster.entries()[SITE]
    classifier = bundles.read(signed.path, signer=signed.signer).classifier()
    private = (*CANARIES, str(tmp_path), str(Path.home()), *([socket.gethostname()] * (len(socket.gethostname()) > 5)))
    return Recorded(requests, str(entry.reply_key), travelling(classifier, make("ecan", {}), Policy()), private)


def check(told: Recorded) -> list[tuple[Any, int]]:
    """Hold every request against the schema; the letters that were sent, as (message, number of values)."""
    objects: dict[str, bytes] = {}
    pushes: list[Any] = []
    for request in told.requests:
        names = [name.decode("latin-1") for name, _ in request.headers]
        assert len(set(names)) == len(names), "a header twice"
        assert set(names) <= HEADERS, f"unknown headers: {set(names) - HEADERS}"
        if request.path.startswith("/v1/fedser/"):
            check_own(request)
            continue
        kind = FLEET[request.path.removeprefix("/v1/fleet/")]
        message = kind.FromString(request.body)
        assert message.SerializeToString() == request.body, "what is no field of the message"
        if isinstance(message, fleet_pb2.PushMessagesRequest):
            pushes.append(message)
        elif isinstance(message, message_pb2.PushObjectRequest):
            objects[message.object_id] = message.object_content
    check_no_canary(told)
    letters = [check_push(push, objects, told) for push in pushes]
    sent = {name for push in pushes for name in letter.tree_ids(push.message_object_trees[0], 100)}
    assert set(objects) <= sent, "objects outside any letter"
    return letters


def check_own(request: Request) -> None:
    if request.path == "/v1/fedser/enrol":
        assert set(json.loads(request.body)) == set(EnrolRequest.model_fields)
    else:
        assert (request.method, request.body) == ("GET", b"")
        assert request.path in ("/v1/fedser/bundle", "/v1/fedser/trust")


def check_push(push: Any, objects: dict[str, bytes], told: Recorded) -> tuple[Any, int]:
    """One reply: its header, its tree, its objects, its bytes, its schema."""
    (header,), (tree,) = push.messages_list, push.message_object_trees
    assert list(push.clientapp_runtime_list) == [0.0], "run times leave"
    assert not header.content.ByteSize(), "the header has content"
    assert not header.HasField("error"), "the header tells an error"
    check_metadata(header.metadata)
    ids = letter.tree_ids(tree, 100)
    kinds = [objects[name].split(b" ", 1)[0].decode() for name in ids]
    assert set(kinds) <= KINDS, "another kind of object"
    body = {kind: objects[name].partition(b"\0")[2] for kind, name in zip(kinds, ids, strict=True)}
    assert set(json.loads(body["RecordDict"])) == {"head", "flat"}, "another record"
    assert set(json.loads(body["ArrayRecord"])) == {"flat"}, "another array"
    inner = message_pb2.Message.FromString(body["Message"])
    if inner.HasField("metadata"):
        check_metadata(inner.metadata)
    else:
        check_metadata(message_pb2.Metadata.FromString(body["Message"]))
    reply = letter.read(tree.object_id, dict(objects), 1 << 24)
    message, flat = wire.decode_reply(reply, told.reply_key)
    assert isinstance(message, (Update, Refusal))
    plain = asdict(message)
    assert set(plain) == {field.name for field in fields(type(message))}
    assert flat.numel() in (0, elements(told.layout)), "values that no layout holds"
    return message, flat.numel()


def check_metadata(about: Any) -> None:
    assert about.group_id == ""
    assert about.message_type == "train"
    assert about.src_node_id or about.dst_node_id


def check_no_canary(told: Recorded) -> None:
    everything = b"\n".join(request.raw for request in told.requests).lower()
    for word in told.private:
        plain = word.lower().encode()
        for written in (plain, plain.hex().encode(), word.lower().encode("utf-16-le"), plain[::-1]):
            assert written not in everything, f"{word} leaves this site"
        for shift in range(3 if len(plain) > 5 else 0):  # base64, wherever it begins
            inside = base64.b64encode(bytes(shift) + plain)[4 if shift else 0 : -4].lower()
            assert len(inside) < 6 or inside not in everything, f"{word} leaves this site in base64"


def test_all_that_leaves_is_on_the_schema(recorded: Recorded) -> None:
    letters = check(recorded)
    assert [type(message) for message, _ in letters] == [Update] * (ROUNDS + 1)
    assert [count for _, count in letters] == [elements(recorded.layout)] * ROUNDS + [0]
    # an order is asked for, answered, and nothing else is done: no code, no run, no registration
    paths = {request.path.rsplit("/", 1)[1] for request in recorded.requests}
    assert paths <= {*FLEET, "enrol", "bundle", "trust"}
    assert {"push-messages", "push-object", "enrol", "bundle"} <= paths


def test_the_first_layer_and_the_head_stay(recorded: Recorded) -> None:
    names = [name for name, _ in recorded.layout]
    assert names
    assert not any(name.startswith("head.") for name in names)
    total = sum(count for _, count in check(recorded))
    assert total == ROUNDS * elements(recorded.layout)


def test_the_wire_takes_hardly_more_than_the_values(recorded: Recorded) -> None:
    """Beside them: one head, and a few objects that name each other."""
    pushed = sum(len(request.body) for request in recorded.requests if request.path.endswith("push-object"))
    assert pushed < 4 * ROUNDS * elements(recorded.layout) + (ROUNDS + 1) * 12_000


def first(told: Recorded, route: str) -> Request:
    return next(request for request in told.requests if request.path.endswith(route))


def with_header(told: Recorded) -> None:
    first(told, "pull-messages").headers.append((b"x-hostname", b"abc"))


def with_path(told: Recorded) -> None:
    first(told, "enrol").headers.append((b"referer", b"file:///data/" + FOLDER.encode()))


def with_field(told: Recorded) -> None:
    first(told, "enrol").body = first(told, "enrol").body[:-1] + b',"utterances":12}'


def with_run_time(told: Recorded) -> None:
    request = first(told, "push-messages")
    push = fleet_pb2.PushMessagesRequest.FromString(request.body)
    push.clientapp_runtime_list[0] = 1.5
    request.body = push.SerializeToString()


def with_group(told: Recorded) -> None:
    request = first(told, "push-messages")
    push = fleet_pb2.PushMessagesRequest.FromString(request.body)
    push.messages_list[0].metadata.group_id = "12 utterances"
    request.body = push.SerializeToString()


def with_content(told: Recorded) -> None:
    request = first(told, "push-messages")
    push = fleet_pb2.PushMessagesRequest.FromString(request.body)
    push.messages_list[0].content.items.add().key = "features"
    request.body = push.SerializeToString()


def with_object(told: Recorded) -> None:
    request = copy.deepcopy(first(told, "push-object"))
    push = message_pb2.PushObjectRequest.FromString(request.body)
    push.object_id = "0" * 64
    request.body = push.SerializeToString()
    told.requests.append(request)


def with_other_values(told: Recorded) -> None:
    for request in told.requests:
        if request.path.endswith("push-object"):
            push = message_pb2.PushObjectRequest.FromString(request.body)
            if push.object_content.startswith(b"ArrayChunk"):
                push.object_content = push.object_content[:-4] + b"\0\0\0\1"
                request.body = push.SerializeToString()
                return


def with_canary_in_base64(told: Recorded) -> None:
    first(told, "pull-messages").headers.append((b"accept", base64.b64encode(b"x=" + FOLDER.encode())))


def with_code_asked_for(told: Recorded) -> None:
    told.requests.append(Request("POST", "/v1/fleet/get-fab", []))


@pytest.mark.parametrize(
    "leak",
    [
        with_header,
        with_path,
        with_field,
        with_run_time,
        with_group,
        with_content,
        with_object,
        with_other_values,
        with_canary_in_base64,
        with_code_asked_for,
    ],
)
def test_a_leak_would_be_seen(recorded: Recorded, leak: Callable[[Recorded], None]) -> None:
    bent = copy.deepcopy(recorded)
    leak(bent)
    with pytest.raises((AssertionError, KeyError, FedserError)):
        check(bent)
