"""What a site gets that is no order: a WireError, whatever the provider sends, and the site goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flwr.proto import message_pb2 as messages
from flwr.proto.fleet_pb2 import PullMessagesResponse

from fedser.errors import NetworkError, WireError

DATA = (3).to_bytes(8, "little") + b"abc" + bytes(100)
Bend = Callable[[PullMessagesResponse], object]


def first(answer: PullMessagesResponse) -> Any:
    return answer.messages_list[0]


def tree(answer: PullMessagesResponse) -> Any:
    return answer.message_object_trees[0]


def wide(answer: PullMessagesResponse) -> None:
    tree(answer).children.extend(messages.ObjectTree(object_id="0" * 64) for _ in range(20_000))


def inline(answer: PullMessagesResponse) -> None:
    item = first(answer).content.items.add()
    item.key = "code"
    item.config_record.items.add().key = "x"


BENT: dict[str, Bend] = {
    "two messages": lambda a: a.messages_list.add().CopyFrom(first(a)),
    "a tree too many": lambda a: a.message_object_trees.add().CopyFrom(tree(a)),
    "no tree": lambda a: a.ClearField("message_object_trees"),
    "no content": lambda a: first(a).ClearField("content"),
    "content in the header": inline,
    "an item without a value": lambda a: first(a).content.items.add(),
    "an error": lambda a: first(a).error.MergeFrom(type(first(a).error)(code=1)),
    "no metadata": lambda a: first(a).ClearField("metadata"),
    "another type": lambda a: setattr(first(a).metadata, "message_type", "os.system('x')"),
    "for another site": lambda a: setattr(first(a).metadata, "dst_node_id", 5),
    "from another site": lambda a: setattr(first(a).metadata, "src_node_id", 5),
    "an answer": lambda a: setattr(first(a).metadata, "reply_to_message_id", "0" * 64),
    "another id": lambda a: setattr(first(a).metadata, "message_id", "0" * 64),
    "another root": lambda a: setattr(tree(a), "object_id", "0" * 64),
    "a huge tree": wide,
    "an id that is a path": lambda a: setattr(tree(a).children[0], "object_id", "../../etc/passwd"),
    "another order of its objects": lambda a: tree(a).children[0].children.reverse(),
    "a child less": lambda a: tree(a).children[0].children.pop(),
    "an object that is not there": lambda a: setattr(tree(a).children[0], "object_id", "0" * 64),
}


@pytest.mark.parametrize("name", BENT)
def test_what_is_no_order_is_refused_and_the_next_one_is_read(network: Any, name: str) -> None:
    net = network()
    net.enrol("site-1")
    got: dict[str, Any] = {}
    exchange = threading.Thread(target=lambda: got.update(net.room.exchange([("site-1", DATA)])), daemon=True)
    exchange.start()
    with net.line("site-1") as line:
        pull = line._client.PullMessages

        def bent(request: Any) -> PullMessagesResponse:
            answer = pull(request)
            BENT[name](answer)
            return answer

        line._client.PullMessages = bent
        if name == "another order of its objects":  # the tree says which objects there are, and no more than that
            assert line.receive().data == DATA
        else:
            with pytest.raises((WireError, NetworkError)):
                line.receive()
    with net.line("site-1") as line:  # its node opens a new line then, and gets its order again
        order = line.receive()
        assert order.data == DATA
        assert line.reply(order, DATA)
    exchange.join(10)
    assert got == {"site-1": DATA}
