"""Facts about Flower 1.41 that the adapter leans on. When one no longer holds, the adapter has to change."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from base64 import b64encode
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2 as fleet
from flwr.proto import message_pb2 as messages
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_IN_MEMORY_DB_NAME,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.date import now
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware

from fedser.errors import DependencyError
from fedser.federation.flower import environment, letter
from fedser.federation.flower.routes import PREFIX, ROUTES

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::starlette.exceptions.StarletteDeprecationWarning"
)


class Plain:
    """Flower's own routes with its node authentication and nothing of the project's."""

    def __init__(self) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state = factory.state()
        self.run = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        task = self.state.get_run_info(run_ids=[self.run])[0].primary_task_id
        assert task is not None
        assert self.state.claim_task(task)
        assert self.state.activate_task(task)
        app = FastAPI(
            middleware=[
                Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
                Middleware(ProtobufTranslationMiddleware),
                Middleware(NodeAuthMiddleware),
            ]
        )
        app.state.linkstate_factory, app.state.enable_supernode_auth = factory, True
        app.include_router(router)
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self.keys = {site: ec.generate_private_key(ec.SECP384R1()) for site in ("a", "b")}
        self.node = {site: self._enrol(key) for site, key in self.keys.items()}

    def _enrol(self, key: ec.EllipticCurvePrivateKey) -> int:
        node = self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, public_key_to_bytes(key.public_key()), 0)
        self.state.acknowledge_node_heartbeat(node, 10)
        return node

    def headers(self, site: str) -> dict[str, str]:
        key, moment = self.keys[site], now().isoformat()
        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, moment.encode())).decode(),
            TIMESTAMP_HEADER: moment,
            "content-type": PROTOBUF_MEDIA_TYPE,
        }

    def call(self, route: str, request: Any, headers: dict[str, str]) -> Any:
        async def post() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://provider") as client:
                return await client.post(PREFIX + route, content=request.SerializeToString(), headers=headers)

        return asyncio.run(post())

    def message(self, data: bytes, source: int, target: int, reply_to: str = "") -> Any:
        about = Metadata(self.run, "", source, target, reply_to, "", now().timestamp(), 60.0, "train")
        about.delivered_at = ""
        message = make_message(about, letter.content(data))
        message.metadata.__dict__["_message_id"] = message.object_id
        return message

    def order(self, site: str, data: bytes = b"") -> str:
        message = self.message(data, SUPERLINK_NODE_ID, self.node[site])
        session = self.state.start_session(self.run)
        stored, missing = self.state.store_message_and_object_tree(
            remove_content_from_message(message), get_object_tree(message), session
        )
        assert stored
        parts = get_all_nested_objects(message)
        for name in missing:
            assert self.state.store_object(self.run, session, name, parts[name].deflate())
        return str(message.object_id)

    def push(self, message: Any, site: str) -> fleet.PushMessagesResponse:
        request = fleet.PushMessagesRequest(
            node=Node(node_id=self.node[site]),
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )
        answer = self.call("push-messages", request, self.headers(site))
        assert answer.status_code == 200
        return fleet.PushMessagesResponse.FromString(answer.content)


@pytest.fixture
def plain() -> Plain:
    return Plain()


def test_another_release_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for version in ("1.40.3", "1.42.0", "1.4.1", "2.0"):
        monkeypatch.setattr(environment.metadata, "version", lambda name, version=version: version)
        with pytest.raises(DependencyError, match="speaks with"):
            environment.prepare(tmp_path)


CHECK = """
import os, sys
from pathlib import Path
if sys.argv[1] == "late":
    import flwr.supercore.telemetry
    assert flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED == "1"
from fedser.errors import DependencyError
from fedser.federation.flower import environment
assert sys.argv[1] == "late" or "flwr" not in sys.modules
try:
    environment.prepare(Path(sys.argv[2]))
except DependencyError:
    sys.exit(9)
import flwr.supercore.telemetry
assert flwr.supercore.telemetry.FLWR_TELEMETRY_ENABLED == "0"
assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"
assert os.environ["FLWR_HOME"] == sys.argv[2]
"""


@pytest.mark.parametrize(("when", "code"), [("first", 0), ("late", 9)])
def test_telemetry_is_switched_off_before_flower_reads_its_switches(when: str, code: int, tmp_path: Any) -> None:
    environ = {"PYTHONPATH": ":".join(p for p in sys.path if p), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", CHECK, when, str(tmp_path / "home")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr


def test_plain_routes_accept_a_reply_in_anothers_name(plain: Plain) -> None:
    """Why there is a binding: node authentication does not look at the sender that a message names."""
    order = plain.order("b")
    forged = plain.message(b"forged", plain.node["b"], SUPERLINK_NODE_ID, order)
    assert plain.push(forged, "a").objects_to_push
    assert [m.metadata.message_id for m in plain.state.get_message_res({order}, plain.run)] == [forged.object_id]


def test_plain_routes_give_away_anothers_objects_and_orders(plain: Plain) -> None:
    order = plain.order("b", b"for b")
    me = Node(node_id=plain.node["a"])
    request = messages.PullObjectRequest(node=me, run_id=plain.run, object_id=order)
    answer = plain.call("pull-object", request, plain.headers("a"))
    assert messages.PullObjectResponse.FromString(answer.content).object_available
    delete = messages.ConfirmMessageReceivedRequest(node=me, run_id=plain.run, message_object_id=order)
    assert plain.call("confirm-message-received", delete, plain.headers("a")).status_code == 200
    assert order not in plain.state.object_store


def test_flower_says_yes_to_a_reply_that_it_does_not_store(plain: Plain) -> None:
    """Why the mailroom looks into the store before it believes a reply."""
    answer = plain.push(plain.message(b"", plain.node["a"], SUPERLINK_NODE_ID, "0" * 64), "a")
    assert answer.session_id
    assert not answer.objects_to_push
    assert len(plain.state.object_store) == 0


def test_node_authentication_signs_a_timestamp_only(plain: Plain) -> None:
    """The same headers fit another route, another body, and a second time."""
    headers, me = plain.headers("a"), Node(node_id=plain.node["a"])
    pull = fleet.PullMessagesRequest(node=me)
    assert plain.call("pull-messages", pull, headers).status_code == 200
    assert plain.call("pull-messages", pull, headers).status_code == 200
    assert plain.call("deactivate-node", fleet.DeactivateNodeRequest(node_id=me.node_id), headers).status_code == 200


def test_node_authentication_holds_the_node_id_against_the_key(plain: Plain) -> None:
    request = fleet.PullMessagesRequest(node=Node(node_id=plain.node["b"]))
    assert plain.call("pull-messages", request, plain.headers("a")).status_code == 401


def test_a_message_needs_a_node_that_was_online(plain: Plain) -> None:
    """Why the mailroom puts a new node online once."""
    node = plain.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, b"key", 0)
    message = plain.message(b"", SUPERLINK_NODE_ID, node)
    bare, tree = remove_content_from_message(message), get_object_tree(message)
    assert plain.state.store_message_and_object_tree(bare, tree, plain.state.start_session(plain.run)) == (False, [])
    plain.state.acknowledge_node_heartbeat(node, 10)
    plain.state.deactivate_node(node)
    assert plain.state.store_message_and_object_tree(bare, tree, plain.state.start_session(plain.run))[0]


def test_a_node_that_is_online_is_not_activated_twice(plain: Plain) -> None:
    """Why the mailroom deactivates a site that comes back: Flower waits for its heartbeats to stop."""
    request = fleet.ActivateNodeRequest(
        public_key=public_key_to_bytes(plain.keys["a"].public_key()), heartbeat_interval=10
    )
    assert plain.call("activate-node", request, plain.headers("a")).status_code >= 400
    plain.state.deactivate_node(plain.node["a"])
    assert plain.call("activate-node", request, plain.headers("a")).status_code == 200


def test_object_ids_are_digests_and_equal_chunks_are_kept_once(plain: Plain) -> None:
    data = bytes(2 * letter.CHUNK)  # two equal chunks
    record = RecordDict({"flat": ArrayRecord({"flat": Array("uint8", (len(data),), "x", data)})})
    parts = get_all_nested_objects(record)
    assert all(name == hashlib.sha256(part.deflate()).hexdigest() for name, part in parts.items())
    assert len(parts) == 4
    first, second = plain.order("a", bytes(100)), plain.order("b", bytes(100))
    assert first != second
    kinds = [entry.content.split(b" ")[0] for entry in plain.state.object_store.store.values()]  # type: ignore[attr-defined]
    assert kinds.count(b"Message") == 2
    assert kinds.count(b"ArrayChunk") == 1


def test_the_store_checks_the_digest_of_what_it_is_given(plain: Plain) -> None:
    order = plain.order("a")
    answer = plain.push(plain.message(b"x", plain.node["a"], SUPERLINK_NODE_ID, order), "a")
    name = answer.objects_to_push[0]
    assert not plain.state.store_object(plain.run, answer.session_id, name, b"ArrayChunk  1\0y")


def test_only_the_routes_that_a_site_needs_are_there(network: Any) -> None:
    net = network()
    net.enrol("a")
    paths = {route.path for route in router.routes if hasattr(route, "path")}
    assert {PREFIX + name for name in ROUTES} < paths
    with httpx.Client(base_url=f"https://{net.address}", verify=net.context(), trust_env=False) as client:
        others = sorted(paths - {PREFIX + name for name in ROUTES})
        for path in [*others, "/docs", "/openapi.json", "/v1/control/list-runs"]:
            assert client.post(path, headers={"content-type": PROTOBUF_MEDIA_TYPE}).status_code in (401, 404)
            assert client.get(path).status_code in (404, 405)


def test_keys_are_written_in_one_way() -> None:
    """The roster's PEM and the one that node authentication presents are compared byte by byte."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    form = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert public_key_to_bytes(key) == key.public_bytes(*form)
