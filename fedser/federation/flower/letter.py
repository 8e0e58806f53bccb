"""The project's messages inside Flower's: how bytes become a tree of Flower objects, and back.

A message of :mod:`fedser.federation.wire` has a head (the signed entry) and a payload (the flat tensor). The head
travels as a ``ConfigRecord`` and the payload as an ``Array`` in chunks::

    Message ── RecordDict ─┬─ "head": ConfigRecord {"head": bytes}
                           └─ "flat": ArrayRecord {"flat": Array ── ArrayChunk …}

Flower names an object by the SHA-256 of its content, so all sites' orders share the chunks of one payload in the
provider's memory. All other objects bear the digest of the head, which is signed: nobody but the sender can know
their names before they arrive, and register something else under them.

Whatever comes in is read by :func:`read` alone: it knows these types, bounds every size before it joins anything,
and accepts only the one tree that :func:`content` would have made of the same bytes. The metadata inside a message
object can differ from the header that was checked, and is never looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.app.message.arraychunk import ArrayChunk
from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.constant import HEAD_BODY_DIVIDER
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content, iterate_object_tree
from google.protobuf.message import DecodeError

from fedser.errors import WireError

CHUNK = FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE  # bytes of a payload that travel in one request
HEAD_LIMIT = 1 << 21  # bytes of a message's head, and of each object that is not a chunk
_OTHERS = 6  # objects of a letter that are no chunks
_HINT = "Ask the other side which version of fedser it runs; if they agree, treat the message as hostile."


def content(data: bytes) -> RecordDict:
    """A message's bytes as Flower's records, which keep views of them and no copy."""
    head = min(8 + int.from_bytes(data[:8], "little"), len(data))
    name = hashlib.sha256(data[:head]).hexdigest()
    array = Array(dtype="uint8", shape=(len(data) - head,), stype=name, data=b"")
    payload = memoryview(data)[head:]
    chunks = [ArrayChunk(payload[start : start + CHUNK]) for start in range(0, len(payload), CHUNK)]
    record = ArrayRecord({"flat": array})  # a copy of the array, without what it cached
    record["flat"].__dict__["_chunks"] = [(chunk.object_id, chunk) for chunk in chunks]
    return RecordDict({"head": ConfigRecord({"head": data[:head]}), "flat": record})


def most_objects(limit: int) -> int:
    """Objects of the largest letter with a payload of ``limit`` bytes."""
    return _OTHERS + -(-limit // CHUNK)


def tree_ids(tree: ObjectTree, most: int) -> list[str]:
    """Ids of all objects of a tree, in post-order.

    Raises:
        WireError: it has more than ``most`` of them, is deeper than a letter, or holds an id that is none.
    """
    level, depth, count = [tree], 0, 1
    while level:
        depth += 1
        level = [child for node in level for child in node.children]
        count += len(level)
        if depth > _OTHERS or count > most:
            raise WireError("The message's tree of objects is larger than any message.", _HINT)
    ids = [node.object_id for node in iterate_object_tree(tree)]
    if not all(_is_id(value) for value in ids):
        raise WireError("The message's tree holds an id that is none.", _HINT)
    return ids


def read(root: str, contents: dict[str, bytes], limit: int) -> bytes:
    """The bytes of the message whose object is ``root``.

    Args:
        root: id of the message object.
        contents: all objects of its tree, by id; emptied, since a message and its copy need not lie in memory.
        limit: largest payload, in bytes.

    Raises:
        WireError: the objects are not those of one letter.
    """
    try:
        (record,) = _children(contents, root, "Message")
        head_id, flat_id = _children(contents, record, "RecordDict")
        _children(contents, head_id, "ConfigRecord")
        (array_id,) = _children(contents, flat_id, "ArrayRecord")
        chunk_ids = _children(contents, array_id, "Array")
        head = ConfigRecord.inflate(contents[head_id])["head"]
        if not isinstance(head, bytes):
            raise TypeError("the head is not bytes")
        data = _joined(head, contents, array_id, chunk_ids, limit)
        contents.clear()
        faithful = content(data).object_id == record
    except WireError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, RecursionError, DecodeError):
        faithful = False
    if not faithful:
        raise WireError("The message's objects are not those of one message.", _HINT)
    return data


def _children(contents: Mapping[str, bytes], object_id: str, kind: str) -> list[str]:
    """Ids of an object's children, once its type is the expected one and its size is bounded."""
    if len(contents[object_id]) > HEAD_LIMIT:
        raise WireError("An object of the message is too large.", _HINT)
    found, children, _ = get_object_head_values_from_object_content(contents[object_id])
    if found != kind:
        raise WireError(f"A {kind} was expected in the message and something else came.", _HINT)
    return children


def _joined(head: bytes, contents: Mapping[str, bytes], array_id: str, chunk_ids: list[str], limit: int) -> bytes:
    """Head and chunks, joined; the sum of their sizes is known before anything is joined."""
    body = json.loads(bytes(_body(contents[array_id])))
    order = body["arraychunk_ids"]
    if not isinstance(order, list) or len(order) > most_objects(limit):
        raise WireError("The message's payload has too many chunks.", _HINT)
    parts = [_body(contents[chunk_ids[number]]) for number in order]
    if sum(len(part) for part in parts) > limit:
        raise WireError("The message's payload is too large.", _HINT)
    return b"".join((head, *parts))


def _body(content: bytes) -> memoryview:
    start = content.index(HEAD_BODY_DIVIDER) + len(HEAD_BODY_DIVIDER)
    return memoryview(content)[start:]


def _is_id(value: str) -> bool:
    return len(value) == 64 and all(letter in "0123456789abcdef" for letter in value)
