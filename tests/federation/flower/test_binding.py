"""What an enrolled site tries on another, over real routes: refused, recorded, nothing changed, the round goes on."""

from __future__ import annotations

import copy
import hashlib
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from flwr.app.message.message import make_message, remove_content_from_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, TIMESTAMP_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto import fleet_pb2 as fleet
from flwr.proto import message_pb2 as messages
from flwr.proto.error_pb2 import Error
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from fedser.federation.flower import letter, mailroom
from fedser.federation.flower.mailroom import StoppedError
from fedser.federation.provider import Silence

A, B, C = "site-a", "site-b", "site-c"  # the attacker, its victim, and one that has no order
DATA = {site: (5).to_bytes(8, "little") + site[-5:].encode() + b"the same payload" for site in (A, B)}
ANSWER = {site: (3).to_bytes(8, "little") + site[-3:].encode() + b"update of " + site.encode() for site in (A, B)}


@dataclass
class Reply:
    """A reply as the wire carries it: header, tree, objects."""

    header: Any
    tree: Any
    objects: dict[str, bytes]


@dataclass
class World:
    """A round that waits for two sites, and raw requests by one of them."""

    net: Any
    client: httpx.Client
    got: dict[str, Any] = field(default_factory=dict)
    frozen: Any = None

    def __post_init__(self) -> None:
        room = self.room = self.net.room
        self.run, self.begin = room._run, now().timestamp()
        for site in (A, B, C):
            self.net.enrol(site)
        self.node = dict(room._nodes)
        self.round = threading.Thread(target=self._run, daemon=True)
        self.round.start()
        while len(room.binding.open) < 2:
            self.round.join(0.005)
        self.mail = {site: room.binding.open[self.node[site]] for site in (A, B)}
        for site in (A, B):
            assert self.call("pull-messages", fleet.PullMessagesRequest(node=self.me(site)), site).status_code == 200

    def _run(self) -> None:
        with suppress(StoppedError):
            self.got.update(self.room.exchange(DATA.items()))

    def me(self, site: str = A) -> Node:
        return Node(node_id=self.node[site])

    def call(self, route: str, request: Any, site: str = A) -> httpx.Response:
        """One request, signed with a site's own key."""
        key, moment = self.net.keys[site], now().isoformat()
        headers = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, moment.encode())).decode(),
            TIMESTAMP_HEADER: moment,
            "content-type": PROTOBUF_MEDIA_TYPE,
        }
        body = request if isinstance(request, bytes) else request.SerializeToString()
        return self.client.post(f"/v1/fleet/{route}", content=body, headers=headers)

    def reply(self, data: bytes = ANSWER[A], site: str = A, **header: Any) -> Reply:
        """A reply to the site's own order; ``header`` changes what its header says, the object stays honest."""
        about = {
            "run_id": self.run,
            "message_id": "",
            "src_node_id": self.node[site],
            "dst_node_id": SUPERLINK_NODE_ID,
            "reply_to_message_id": self.mail[site].message_id if site in self.mail else "",
            "group_id": "",
            "created_at": self.begin,
            "ttl": 60.0,
            "message_type": "train",
        }
        message = make_message(Metadata(**about), letter.content(data))  # type: ignore[arg-type]
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        proto = message_to_proto(remove_content_from_message(message))
        for name, value in header.items():
            setattr(proto.metadata, name, value)
        return Reply(proto, get_object_tree(message), objects)

    def push(self, *replies: Reply, site: str = A) -> httpx.Response:
        request = fleet.PushMessagesRequest(
            node=self.me(site),
            messages_list=[reply.header for reply in replies],
            message_object_trees=[reply.tree for reply in replies if reply.tree is not None],
        )
        return self.call("push-messages", request, site)

    def arrive(self) -> None:
        """The attacker's site reports for duty anew."""
        request = fleet.ActivateNodeRequest(public_key=public(self, A), heartbeat_interval=10)
        assert self.call("activate-node", request).status_code == 200

    def begun(self, data: bytes = ANSWER[A], site: str = A) -> tuple[Reply, str]:
        """An honest reply that was announced, and its session."""
        reply = self.reply(data, site)
        answer = self.push(reply, site=site)
        assert answer.status_code == 200
        return reply, fleet.PushMessagesResponse.FromString(answer.content).session_id

    def give(self, session: str, name: str, content: bytes, site: str = A, run: int | None = None) -> httpx.Response:
        request = messages.PushObjectRequest(
            node=self.me(site),
            run_id=self.run if run is None else run,
            session_id=session,
            object_id=name,
            object_content=content,
        )
        return self.call("push-object", request, site)

    def send(self, reply: Reply, session: str, site: str = A) -> None:
        for name, content in reply.objects.items():
            answer = self.give(session, name, content, site)
            assert messages.PushObjectResponse.FromString(answer.content).stored

    def freeze(self) -> None:
        """Note the state that an attack must not change."""
        self.frozen = self.state()

    def state(self) -> Any:
        store, state = self.room._store, self.room._state
        return copy.deepcopy(
            (
                {
                    name: (mail.reply, mail.session, sorted(mail.wanted), mail.complete)
                    for name, mail in self.mail.items()
                },
                (self.mail[B].received, self.mail[B].delivered, self.mail[B].tree),
                {name: (len(entry.content), entry.ref_count) for name, entry in store.store.items()},
                {name: message.metadata.delivered_at for name, message in state.message_ins_store.items()},
                sorted(state.message_res_store),
                {node: info.status for node, info in state.nodes.items()},
            )
        )

    def finish(self) -> dict[str, Any]:
        """Both sites answer, those that have not yet."""
        for site in (A, B):
            if self.room.binding.open.get(self.node[site]) is self.mail[site] and not self.mail[site].complete:
                if site == A and self.mail[A].reply:
                    self.arrive()  # what it began is dropped
                reply, session = self.begun(ANSWER[site], site)
                self.send(reply, session, site)
        self.round.join(10)
        assert not self.round.is_alive()
        return self.got


@pytest.fixture
def world(network: Any) -> Iterator[World]:
    net = network()
    with httpx.Client(base_url=f"https://{net.address}", verify=net.context(), trust_env=False) as client:
        yield World(net, client)


def public(world: World, site: str) -> bytes:
    return public_key_to_bytes(world.net.keys[site].public_key())


def tree(depth: int, width: int, root: str) -> Any:
    """A tree whose ids are hashes of nothing."""
    counter = iter(range(10**9))

    def node(left: int) -> Any:
        name = hashlib.sha256(str(next(counter)).encode()).hexdigest()
        return messages.ObjectTree(object_id=name, children=[node(left - 1) for _ in range(width if left > 1 else 0)])

    made = node(depth)
    made.object_id = root
    return made


def with_tree(world: World, made: Any) -> httpx.Response:
    reply = world.reply(message_id=made.object_id)
    return world.push(Reply(reply.header, made, {}))


def bottomless(world: World) -> httpx.Response:
    """A tree of 5,000 levels, in protobuf's bytes: no library would write it."""

    def part(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    made = part(1, b"0" * 64)
    children = messages.ObjectTree.DESCRIPTOR.fields_by_name["children"].number
    for _ in range(5000):
        made = part(1, b"0" * 64) + part(children, made)
    reply = world.reply(message_id="0" * 64)
    request = fleet.PushMessagesRequest(node=world.me(), messages_list=[reply.header])
    trees = request.DESCRIPTOR.fields_by_name["message_object_trees"].number
    return world.call("push-messages", request.SerializeToString() + part(trees, made))


def inline(world: World) -> httpx.Response:
    reply = world.reply()
    reply.header.content.ParseFromString(world.reply().header.content.SerializeToString())
    item = reply.header.content.items.add()
    item.key = "head"
    item.config_record.items.add().key = "x"
    return world.push(reply)


def failed(world: World) -> httpx.Response:
    reply = world.reply()
    reply.header.error.CopyFrom(Error(code=1, reason="x"))
    return world.push(reply)


def hollow(world: World) -> httpx.Response:
    reply = world.reply()
    reply.header.ClearField("content")
    return world.push(reply)


def sibling(world: World, name: str) -> httpx.Response:
    """A tree with a foreign object among its leaves, which is deleted together with the tree."""
    reply = world.reply()
    reply.tree.children[0].children.add().object_id = name
    return world.push(reply)


def wrong_root(world: World) -> httpx.Response:
    reply = world.reply()
    reply.tree.object_id = "0" * 64
    return world.push(reply)


def own_tree(world: World, name: str) -> httpx.Response:
    reply = world.reply()
    reply.tree.children[0].children[0].object_id = name
    return world.push(reply)


def a_second_reply(world: World) -> httpx.Response:
    world.begun(b"first")
    world.freeze()
    return world.push(world.reply(b"second"))


def other_session(world: World, session: str) -> httpx.Response:
    reply, _ = world.begun()
    world.freeze()
    name = next(iter(reply.objects))
    return world.give(session, name, reply.objects[name])


def victims_session(world: World) -> httpx.Response:
    _, session = world.begun(ANSWER[B], B)
    return other_session(world, session)


def victims_object(world: World, mine: bool) -> httpx.Response:
    theirs, session = world.begun(ANSWER[B], B)
    _, own = world.begun()
    world.freeze()
    name = next(iter(theirs.objects))
    return world.give(own if mine else session, name, theirs.objects[name])


def too_many_bytes(world: World) -> httpx.Response:
    reply, session = world.begun()
    name = next(iter(reply.objects))
    world.freeze()
    for _ in range(3):  # a content that is not the name's is not stored, and counts
        answer = world.give(session, name, bytes(1 << 20))
        assert not messages.PushObjectResponse.FromString(answer.content).stored
    return world.give(session, name, reply.objects[name])


def after_the_end(world: World) -> httpx.Response:
    reply, session = world.begun()
    world.send(reply, session)
    while world.node[A] in world.room.binding.open:
        world.round.join(0.01)
    world.freeze()
    return world.push(world.reply(b"another"))


def object_after_the_end(world: World) -> httpx.Response:
    reply, session = world.begun()
    world.send(reply, session)
    while world.node[A] in world.room.binding.open:
        world.round.join(0.01)
    world.freeze()
    name = next(iter(reply.objects))
    return world.give(session, name, reply.objects[name])


def pull(world: World, name: str, **changes: Any) -> httpx.Response:
    values = {"node": world.me(), "run_id": world.run, "object_id": name} | changes
    return world.call("pull-object", messages.PullObjectRequest(**values))


def confirm(world: World, name: str, **changes: Any) -> httpx.Response:
    values = {"node": world.me(), "run_id": world.run, "message_object_id": name} | changes
    return world.call("confirm-message-received", messages.ConfirmMessageReceivedRequest(**values))


def replayed_order(world: World, **header: Any) -> httpx.Response:
    """The attacker's own order, word for word, towards the victim."""
    mail = world.mail[A]
    proto = message_to_proto(mail.message)
    for name, value in header.items():
        setattr(proto.metadata, name, value)
    return world.push(Reply(proto, mail.layout, mail.objects))


def secret_object(world: World) -> str:
    """An object of the victim's order that the attacker's own does not share."""
    return next(name for name in world.mail[B].objects if name not in world.mail[A].objects)


Attack = Callable[[World], httpx.Response]

ATTACKS: dict[str, tuple[int, Attack]] = {
    # replies and orders in another's name
    "forged reply in B's name": (
        403,
        lambda w: w.push(w.reply(src_node_id=w.node[B], reply_to_message_id=w.mail[B].message_id)),
    ),
    "forged reply in B's name, to the own order": (403, lambda w: w.push(w.reply(src_node_id=w.node[B]))),
    "forged reply as B's node": (
        401,
        lambda w: w.call(
            "push-messages",
            fleet.PushMessagesRequest(
                node=w.me(B), messages_list=[w.reply(site=B).header], message_object_trees=[w.reply(site=B).tree]
            ),
        ),
    ),
    "foreign reply_to": (403, lambda w: w.push(w.reply(reply_to_message_id=w.mail[B].message_id))),
    "reply to nothing": (403, lambda w: w.push(w.reply(reply_to_message_id=""))),
    "reply to what never was": (403, lambda w: w.push(w.reply(reply_to_message_id="0" * 64))),
    "reply in the provider's name": (403, lambda w: w.push(w.reply(src_node_id=SUPERLINK_NODE_ID))),
    "reply from nobody": (403, lambda w: w.push(w.reply(src_node_id=0))),
    "forged order to B as if from the provider": (
        403,
        lambda w: w.push(w.reply(src_node_id=SUPERLINK_NODE_ID, dst_node_id=w.node[B], reply_to_message_id="")),
    ),
    "order from A to B": (403, lambda w: w.push(w.reply(dst_node_id=w.node[B], reply_to_message_id=""))),
    "reply to B": (403, lambda w: w.push(w.reply(dst_node_id=w.node[B]))),
    "replayed order": (403, lambda w: replayed_order(w, dst_node_id=w.node[B])),
    "replayed order to itself": (403, replayed_order),
    # what belongs to another
    "foreign pull object": (403, lambda w: pull(w, secret_object(w))),
    "foreign pull of the message": (403, lambda w: pull(w, w.mail[B].message_id)),
    "pull of what never was": (403, lambda w: pull(w, "0" * 64)),
    "pull object as B's node": (401, lambda w: pull(w, secret_object(w), node=w.me(B))),
    "pull messages as B's node": (401, lambda w: w.call("pull-messages", fleet.PullMessagesRequest(node=w.me(B)))),
    "pull messages as nobody's node": (401, lambda w: w.call("pull-messages", fleet.PullMessagesRequest())),
    "foreign confirm": (403, lambda w: confirm(w, w.mail[B].message_id)),
    "confirm of an object": (403, lambda w: confirm(w, next(iter(w.mail[A].objects)))),
    "confirm as B's node": (401, lambda w: confirm(w, w.mail[B].message_id, node=w.me(B))),
    "heartbeat as B's node": (
        401,
        lambda w: w.call("send-node-heartbeat", SendNodeHeartbeatRequest(node=w.me(B), heartbeat_interval=10)),
    ),
    "leave as B's node": (401, lambda w: w.call("deactivate-node", fleet.DeactivateNodeRequest(node_id=w.node[B]))),
    "arrival with B's key": (
        401,
        lambda w: w.call(
            "activate-node",
            fleet.ActivateNodeRequest(public_key=public(w, B), heartbeat_interval=10),
        ),
    ),
    # trees
    "wrong tree root": (403, wrong_root),
    "huge tree": (403, lambda w: with_tree(w, tree(2, 20_000, "0" * 64))),
    "wide and deep tree": (403, lambda w: with_tree(w, tree(5, 4, "0" * 64))),
    "deep tree": (403, lambda w: with_tree(w, tree(60, 1, "0" * 64))),
    "deeper tree than protobuf reads": (400, bottomless),
    "tree with an id that is no hash": (403, lambda w: own_tree(w, "../../etc/passwd")),
    "tree with upper case": (403, lambda w: own_tree(w, "A" * 64)),
    "tree with an empty id": (403, lambda w: own_tree(w, "")),
    "tree of B's order": (403, lambda w: with_tree(w, w.mail[B].layout)),
    "tree with B's order among its leaves": (403, lambda w: sibling(w, w.mail[B].message_id)),
    # messages
    "two messages in one push": (403, lambda w: w.push(w.reply(b"1"), w.reply(b"2"))),
    "own and forged message in one push": (403, lambda w: w.push(w.reply(), w.reply(site=B))),
    "no message": (403, lambda w: w.push()),
    "message without a tree": (403, lambda w: w.push(Reply(w.reply().header, None, {}))),
    "header with inline content": (403, inline),
    "error message": (403, failed),
    "header without content": (403, hollow),
    "another run": (403, lambda w: w.push(w.reply(run_id=w.run + 1))),
    "pull from another run": (403, lambda w: pull(w, w.mail[A].message_id, run_id=w.run + 1)),
    "confirm in another run": (403, lambda w: confirm(w, w.mail[A].message_id, run_id=0)),
    "another type of message": (403, lambda w: w.push(w.reply(message_type="query"))),
    "no type of message": (403, lambda w: w.push(w.reply(message_type="\0"))),
    "a second reply beside the first": (403, a_second_reply),
    # objects
    "other session": (403, lambda w: other_session(w, "0" * 8)),
    "no session": (403, lambda w: other_session(w, "")),
    "B's session": (403, victims_session),
    "object of B's reply in B's session": (403, lambda w: victims_object(w, mine=False)),
    "object of B's reply in the own session": (403, lambda w: victims_object(w, mine=True)),
    "object before any push": (403, lambda w: w.give("", "0" * 64, b"x")),
    "object in another run": (403, lambda w: w.give("", "0" * 64, b"x", run=0)),
    "byte quota exceeded": (403, too_many_bytes),
    "push before any order": (403, lambda w: w.push(w.reply(site=C, reply_to_message_id="0" * 64), site=C)),
    "push after completion": (403, after_the_end),
    "object after completion": (403, object_after_the_end),
    # what is not served, or not understood
    "get-run": (404, lambda w: w.call("get-run", GetRunRequest(node=w.me(), run_id=w.run))),
    "get-fab": (404, lambda w: w.call("get-fab", GetFabRequest(node=w.me(), run_id=w.run))),
    "register": (404, lambda w: w.call("register-node", fleet.RegisterNodeFleetRequest(public_key=public(w, A)))),
    "unregister": (404, lambda w: w.call("unregister-node", fleet.UnregisterNodeFleetRequest(node_id=w.node[A]))),
    "no protobuf": (400, lambda w: w.call("push-messages", b"\xff\xff\xff")),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_refused_recorded_and_nothing_changed(world: World, name: str) -> None:
    status, attack = ATTACKS[name]
    world.freeze()
    answer = attack(world)
    assert answer.status_code == status
    if status in (401, 403):
        (record,) = world.net.records
        assert record["event"] == "refused"
        assert record["why"]
        assert status == 401 or record["site"] == (C if name == "push before any order" else A)
    assert world.state() == world.frozen
    replies = world.finish()
    assert replies[B] == ANSWER[B]
    assert replies[A] == ANSWER[A]
    assert not world.room._store.store


def test_another_metadata_inside_is_never_used(world: World) -> None:
    """The object of the message says that B sent it, to an order of B's, in another run: only the header counts."""
    lie = Metadata(7, "x" * 64, world.node[B], 9, world.mail[B].message_id, "group", 1.0, 1e9, "query")
    message = make_message(lie, letter.content(ANSWER[A]))
    objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
    honest = world.reply(message_id=message.object_id)
    reply = Reply(honest.header, get_object_tree(message), objects)
    answer = world.push(reply)
    assert answer.status_code == 200
    world.send(reply, fleet.PushMessagesResponse.FromString(answer.content).session_id)
    assert world.finish() == ANSWER


def sealed(kind: str, children: str, body: bytes) -> bytes:
    return f"{kind} {children} {len(body)}".encode() + b"\0" + body


def hostile_head(world: World) -> Reply:
    """A reply that arrives whole and whose head is no protobuf."""
    reply = world.reply()
    objects = {}
    new: dict[str, str] = {}
    for old, content in reply.objects.items():
        head, _, body = content.partition(b"\0")
        kind, children, _ = head.decode().split(" ")
        ids = ",".join(new.get(child, child) for child in children.split(",") if child)
        for before, after in new.items():
            body = body.replace(before.encode(), after.encode())
        if kind == "ConfigRecord":
            body = b"\xff\xff\xff"
        content = sealed(kind, ids, body)
        new[old] = hashlib.sha256(content).hexdigest()
        objects[new[old]] = content

    def renamed(node: Any) -> Any:
        return messages.ObjectTree(object_id=new[node.object_id], children=[renamed(c) for c in node.children])

    made = renamed(reply.tree)
    reply.header.metadata.message_id = made.object_id
    return Reply(reply.header, made, objects)


def echo(world: World) -> Reply:
    """A reply that is the order itself: all its objects are there already."""
    return Reply(world.reply(message_id=world.mail[A].message_id).header, world.mail[A].layout, {})


def chunk(world: World) -> Reply:
    """A reply whose message object is the payload that both orders share."""
    name = next(n for n, content in world.mail[A].objects.items() if content.startswith(b"ArrayChunk"))
    return Reply(world.reply(message_id=name).header, messages.ObjectTree(object_id=name), {})


@pytest.mark.parametrize("made", [hostile_head, echo, chunk])
def test_a_reply_that_is_no_letter_is_an_error_of_that_reply_alone(world: World, made: Callable[..., Reply]) -> None:
    reply = made(world)
    answer = world.push(reply)
    assert answer.status_code == 200
    world.send(reply, fleet.PushMessagesResponse.FromString(answer.content).session_id)
    replies = world.finish()
    assert replies[A] == DATA[A] if made is echo else isinstance(replies[A], Silence)  # no site's key signed an order
    assert replies[B] == ANSWER[B]
    assert not world.room._store.store


@pytest.mark.parametrize("shape", ["a ring", "under an object of the order"])
def test_trees_that_lie_keep_no_memory(world: World, shape: str) -> None:
    """Replies that are begun and dropped, over and over, with trees in which nothing hangs on its root."""
    before = len(world.room._store)
    shared = next(n for n, content in world.mail[A].objects.items() if content.startswith(b"ArrayChunk"))
    for number in range(5):
        content = sealed("ArrayChunk", "", bytes([number]) * 1000)
        leaf = messages.ObjectTree(object_id=hashlib.sha256(content).hexdigest())
        missing = messages.ObjectTree(object_id=hashlib.sha256(b"missing").hexdigest())
        root = messages.ObjectTree(object_id=hashlib.sha256(bytes([number])).hexdigest())
        if shape == "a ring":
            leaf.children.append(root)
            root.children.append(leaf)
        else:
            root = messages.ObjectTree(object_id=shared, children=[leaf, missing])
        answer = with_tree(world, root)
        assert answer.status_code == 200
        session = fleet.PushMessagesResponse.FromString(answer.content).session_id
        stored = world.give(session, leaf.object_id, content).content
        assert messages.PushObjectResponse.FromString(stored).stored
        world.arrive()
        assert len(world.room._store) == before
    assert world.finish() == ANSWER
    assert not world.room._store.store


def test_nobody_can_foresee_and_spoil_the_objects_of_an_empty_reply(world: World) -> None:
    """The attacker knows all of a refusal but its head; what it registers under those names harms no one."""
    empty = (3).to_bytes(8, "little") + b"own"
    own = world.reply(empty)
    for node in own.tree.children[0].children:
        del node.children[:]  # the record's array is said to be no part of it
    answer = world.push(own)
    assert answer.status_code == 200
    refusal = (3).to_bytes(8, "little") + b"e-b"
    reply, session = world.begun(refusal, B)
    for name, content in reply.objects.items():
        assert messages.PushObjectResponse.FromString(world.give(session, name, content, B).content).stored
        if content.startswith(b"Array "):
            world.arrive()
            with_tree(world, messages.ObjectTree(object_id=name))
            world.arrive()
    assert world.finish()[B] == refusal


def test_a_reply_that_does_not_move_frees_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Announced again and again, and never sent: it would keep the others from sending theirs."""
    monkeypatch.setattr(mailroom, "_STALLED", 0.5)
    world.begun()
    first, end = world.mail[A].moved, time.monotonic() + 5
    while world.mail[A].moved == first:  # to announce it once more is no progress
        assert time.monotonic() < end
        assert world.push(world.reply()).status_code == 200
        time.sleep(0.05)
    assert world.finish() == ANSWER
