"""What one authenticated site may do on the provider's routes: its own mail, once, and nothing else.

Flower authenticates a node by a signed timestamp and then believes what the request says: with its plain routes
one site could answer in another's name, send it orders, read or delete its messages. Here every request is held
against the one mail that is open for the caller. A mail is an order on its way to a site and the reply to it.

========================  =================================================================================
request                   allowed when
========================  =================================================================================
pull messages             always; the caller's own mail is all there is
pull object               the object belongs to the caller's open order
confirm                   it names the caller's open order
push messages             one message with one tree; from the caller, to the provider, in the current run,
                          answering the caller's open order; nothing inside the header; a tree no larger than
                          a letter, without another site's message; no other reply of the caller is on its way
push object               it belongs to the caller's own reply, in its session, within the caller's quota
========================  =================================================================================
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from threading import RLock

from flwr.app import Message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.fleet_pb2 import PullMessagesResponse, PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from google.protobuf.message import Message as Protobuf

from fedser.errors import WireError
from fedser.federation.flower import letter

REDELIVER = 1.0  # seconds after which a site that asks for mail again has lost its order
_SLACK = 1 << 21  # bytes beside the payload that one reply may take


class NotAllowedError(Exception):
    """A request that its sender may not make; the text is the reason."""


@dataclass
class Mail:
    """An order on its way to one site, and the reply to it.

    Attributes:
        message: the order's header; its ``message_id`` is what the reply names.
        layout: the order's tree of objects, and ``objects`` their contents, kept until the reply is there.
        delivered: when the order was last handed over; 0 before.
        session, reply, wanted: the reply's push session, its message id, and its objects that have not arrived.
        tree: all objects of the reply.
        received: bytes of the reply that arrived.
        moved: when something of the reply last arrived, its header at first.
        complete: when all of it had.
        lost: why nobody waits for the reply any longer.
    """

    site: str
    node: int
    message: Message
    layout: ObjectTree
    objects: dict[str, bytes]
    delivered: float = 0.0
    session: str = ""
    reply: str = ""
    wanted: set[str] = field(default_factory=set)
    tree: tuple[str, ...] = ()
    received: int = 0
    moved: float = 0.0
    complete: float = 0.0
    lost: str = ""

    @property
    def message_id(self) -> str:
        """Id of the order's message object."""
        return self.message.metadata.message_id


class Binding:
    """Holds each request against its sender's open mail.

    Args:
        run: Flower's id of the current run.
        largest: bytes of the largest payload.
    """

    def __init__(self, run: int, largest: int) -> None:
        self.lock = RLock()
        self.open: dict[int, Mail] = {}
        self._run = run
        self._largest = largest

    def intake(self) -> int:
        """Replies that are being received, or wait to be taken."""
        return sum(bool(mail.reply) for mail in self.open.values())

    def has_mail(self, node: int) -> bool:
        """Whether an order waits for a node: one that was never handed over, or that the node asks for again."""
        mail = self.open.get(node)
        if mail is None or mail.complete:
            return False
        return not mail.delivered or time.monotonic() - mail.delivered > REDELIVER

    def before(self, node: int, request: Protobuf) -> None:
        """Check a request of an authenticated node.

        Raises:
            NotAllowedError: it is not this node's to make.
        """
        with self.lock:
            mail = self.open.get(node)
            if isinstance(request, PullObjectRequest):
                self._same_run(request.run_id)
                _allow(mail is not None and request.object_id in mail.objects, "the object is not this site's")
            elif isinstance(request, ConfirmMessageReceivedRequest):
                self._same_run(request.run_id)
                own = mail is not None and request.message_object_id == mail.message_id
                _allow(own, "the message is not this site's")
            elif isinstance(request, PushMessagesRequest):
                self._check_reply(mail, node, request)
            elif isinstance(request, PushObjectRequest):
                self._check_object(mail, request)

    def after(self, node: int, request: Protobuf, response: Protobuf) -> Mail | None:
        """Take note of what a request brought about; returns the mail whose reply is complete now."""
        with self.lock:
            mail = self.open.get(node)
            if mail is None or mail.complete:
                return None
            now = time.monotonic()
            if isinstance(response, PullMessagesResponse) and response.messages_list:
                mail.delivered = now
            elif isinstance(response, PushMessagesResponse):
                if mail.reply != request.messages_list[0].metadata.message_id:
                    return None  # dropped meanwhile: another process of the site reported for duty
                mail.session, mail.wanted = response.session_id, set(response.objects_to_push)
            elif isinstance(request, PushObjectRequest) and getattr(response, "stored", False):
                mail.wanted.discard(request.object_id)
                mail.moved = now
            if mail.session and not mail.wanted:
                mail.complete = now
                return mail
        return None

    def _check_reply(self, mail: Mail | None, node: int, request: PushMessagesRequest) -> None:
        one = len(request.messages_list) == 1 and len(request.message_object_trees) == 1
        _allow(one, "one message with one tree is a reply")
        message, tree = request.messages_list[0], request.message_object_trees[0]
        header = message.metadata
        self._same_run(header.run_id)
        _allow(header.src_node_id == node, "the reply names another sender")
        _allow(header.dst_node_id == SUPERLINK_NODE_ID, "the reply is not for the provider")
        if mail is None or header.reply_to_message_id != mail.message_id or mail.complete:
            raise NotAllowedError("no order to this site is open with that id")
        _allow(header.message_id == tree.object_id, "the tree has another root than the message")
        _allow(header.message_type == mail.message.metadata.message_type, "the reply is of another type")
        bare = message.HasField("content") and not message.content.ByteSize() and not message.HasField("error")
        _allow(bare, "the header carries content")
        _allow(not mail.reply or mail.reply == tree.object_id, "another reply of this site is on its way")
        try:
            ids = letter.tree_ids(tree, letter.most_objects(self._largest))
        except WireError as error:
            raise NotAllowedError(str(error)) from None
        others = {name for m in self.open.values() if m is not mail for name in (m.message_id, m.reply)}
        _allow(others.isdisjoint(ids), "the tree names another site's message")
        if not mail.reply:
            mail.moved = time.monotonic()  # from here on it holds a place that others wait for
        mail.reply, mail.tree = tree.object_id, tuple(dict.fromkeys(ids))

    def _check_object(self, mail: Mail | None, request: PushObjectRequest) -> None:
        self._same_run(request.run_id)
        if mail is None or not mail.session or request.session_id != mail.session:
            raise NotAllowedError("no push of this site is open in that session")
        _allow(request.object_id in mail.wanted, "the object belongs to no reply of this site")
        mail.received += len(request.object_content)
        _allow(mail.received <= self._largest + _SLACK, "the site's quota of bytes is spent")

    def _same_run(self, run: int) -> None:
        _allow(run == self._run, "another run")

    def forget_reply(self, mail: Mail) -> None:
        """Drop a reply that was begun, so that the site can send it again."""
        mail.reply, mail.session = "", ""
        mail.wanted, mail.tree, mail.received, mail.moved = set(), (), 0, 0.0


def _allow(fits: bool, otherwise: str) -> None:
    if not fits:
        raise NotAllowedError(otherwise)
