"""A letter is read back as it was written, and whatever else comes is a WireError, with bounded memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedser.errors import WireError
from fedser.federation.flower import letter

LIMIT = 1 << 20
Parts = dict[str, bytes]


def wrapped(record: RecordDict) -> Message:
    about = Metadata(1, "", 2, 3, "", "", 0.0, 60.0, "train")
    return make_message(about, record)


def packed(record: RecordDict) -> tuple[str, Parts]:
    """The root's id and all contents, as they would lie in a store."""
    message = wrapped(record)
    return message.object_id, {name: part.deflate() for name, part in get_all_nested_objects(message).items()}


def sealed(kind: str, children: list[str], body: bytes) -> bytes:
    """An object's content, whatever it says."""
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body


def named(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def written(head: bytes = b"head", payload: bytes = b"payload") -> bytes:
    return len(head).to_bytes(8, "little") + head + payload


def bent(kind: str, change: Callable[[str, list[str], bytes], bytes]) -> tuple[str, Parts]:
    """A letter whose one object of a kind says something else; what lies above it names it correctly again."""
    root, parts = packed(letter.content(written(payload=bytes(100))))
    new: dict[str, str] = {}
    for old, content in list(parts.items()):  # children come before their parents
        head, _, body = content.partition(b"\0")
        what, children, _ = head.decode().split(" ")
        ids = [new.get(child, child) for child in children.split(",") if child]
        for before, after in new.items():
            body = body.replace(before.encode(), after.encode())
        content = change(what, ids, body) if what == kind else sealed(what, ids, body)
        new[old] = named(content)
        parts[new[old]] = content
    return new[root], parts


def array(**changes: object) -> Callable[[str, list[str], bytes], bytes]:
    def change(kind: str, children: list[str], body: bytes) -> bytes:
        return sealed(kind, children, json.dumps(json.loads(body) | changes).encode())

    return change


def with_body(body: bytes) -> Callable[[str, list[str], bytes], bytes]:
    return lambda kind, children, _: sealed(kind, children, body)


def as_kind(kind: str) -> Callable[[str, list[str], bytes], bytes]:
    return lambda _, children, body: sealed(kind, children, body)


def with_children(change: Callable[[list[str]], list[str]]) -> Callable[[str, list[str], bytes], bytes]:
    return lambda kind, children, body: sealed(kind, change(children), body)


HEAD, FLAT = ConfigRecord({"head": written()[:12]}), letter.content(written())["flat"]
ONE = Array(dtype="uint8", shape=(1,), stype="x", data=b"1")

#: Records that are no letter, though Flower made them.
OTHER_RECORDS = {
    "nothing": RecordDict({}),
    "head alone": RecordDict({"head": HEAD}),
    "payload alone": RecordDict({"flat": FLAT}),
    "an extra record": RecordDict({"head": HEAD, "flat": FLAT, "more": MetricRecord({"x": 1})}),
    "a metric for the head": RecordDict({"head": MetricRecord({"head": 1}), "flat": FLAT}),
    "a text for the head": RecordDict({"head": ConfigRecord({"head": "text"}), "flat": FLAT}),
    "a list for the head": RecordDict({"head": ConfigRecord({"head": [b"1", b"2"]}), "flat": FLAT}),
    "more in the head": RecordDict({"head": ConfigRecord({"head": written()[:12], "path": "/data"}), "flat": FLAT}),
    "an empty head": RecordDict({"head": ConfigRecord({}), "flat": FLAT}),
    "a second array": RecordDict({"head": HEAD, "flat": ArrayRecord({"flat": ONE, "more": ONE})}),
    "an array of another name": RecordDict({"head": HEAD, "flat": ArrayRecord({"other": FLAT["flat"]})}),
    "no array": RecordDict({"head": HEAD, "flat": ArrayRecord({})}),
    "another type of array": RecordDict({"head": HEAD, "flat": ArrayRecord({"flat": ONE})}),
    "records of other names": RecordDict({"body": HEAD, "flat": FLAT}),
    "records the other way round": RecordDict({"flat": FLAT, "head": HEAD}),
    "another head's payload": RecordDict({"head": ConfigRecord({"head": written(b"HEAD")[:12]}), "flat": FLAT}),
}

#: Trees whose objects were made by hand.
BENT = {
    "a chunk twice": ("Array", array(arraychunk_ids=[0, 0])),
    "a chunk thousands of times": ("Array", array(arraychunk_ids=[0] * 5000)),
    "a chunk out of range": ("Array", array(arraychunk_ids=[7])),
    "a chunk from the end": ("Array", array(arraychunk_ids=[-1])),
    "a chunk by truth": ("Array", array(arraychunk_ids=[False])),
    "a chunk by fraction": ("Array", array(arraychunk_ids=[0.0])),
    "a chunk by name": ("Array", array(arraychunk_ids=["0"])),
    "chunks that are no list": ("Array", array(arraychunk_ids={"0": 0})),
    "no chunks": ("Array", array(arraychunk_ids=[])),
    "another shape": ("Array", array(shape=[1, 107])),
    "another dtype": ("Array", array(dtype="object")),
    "more about the array": ("Array", array(note="x")),
    "an array without JSON": ("Array", with_body(b"\xff\xfe")),
    "an array that is a list": ("Array", with_body(b"[]")),
    "deep JSON": ("Array", with_body(b"[" * 100_000)),
    "a huge number": ("Array", with_body(b'{"arraychunk_ids": [' + b"9" * 10_000 + b"]}")),
    "huge JSON": ("Array", with_body(b" " * (letter.HEAD_LIMIT + 1))),
    "a head that is no protobuf": ("ConfigRecord", with_body(b"\xff\xff\xff")),
    "a head that is empty protobuf": ("ConfigRecord", with_body(b"")),
    "a chunk of another class": ("ArrayChunk", as_kind("Message")),
    "a chunk of no class": ("ArrayChunk", as_kind("os.system")),
    "a message of another class": ("Message", as_kind("RecordDict")),
    "a record of another class": ("RecordDict", as_kind("ArrayRecord")),
    "a message with two records": ("Message", with_children(lambda ids: ids * 2)),
    "a message with none": ("Message", with_children(lambda ids: [])),
    "children that are nowhere": ("Message", with_children(lambda ids: ["0" * 64])),
    "an array with a child more": ("Array", with_children(lambda ids: [*ids, "0" * 64])),
    "a record that is its own child": ("ArrayRecord", with_children(lambda ids: ids + ids)),
    "two words in the header": ("RecordDict", lambda *_: b"RecordDict 5\0hello"),
    "no end of the header": ("RecordDict", lambda *_: b"RecordDict"),
    "nothing at all": ("RecordDict", lambda *_: b""),
}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.binary(max_size=3000))
@example(b"", b"")
def test_a_letter_comes_back_as_it_went(head: bytes, payload: bytes) -> None:
    data = written(head, payload)
    root, parts = packed(letter.content(data))
    assert letter.read(root, dict(parts), LIMIT) == data


@pytest.mark.parametrize("size", [letter.CHUNK - 1, letter.CHUNK, letter.CHUNK + 1, 2 * letter.CHUNK])
def test_a_letter_of_several_chunks(size: int) -> None:
    data = written(payload=bytes(size))  # equal chunks are one object
    record = letter.content(data)
    message = wrapped(record)
    root, parts = packed(record)
    assert letter.read(root, dict(parts), size) == data
    assert len(letter.tree_ids(get_object_tree(message), letter.most_objects(size))) <= letter.most_objects(size)
    with pytest.raises(WireError, match="too large|too many"):
        letter.read(root, dict(parts), size - 1)


def test_only_chunks_have_names_that_others_can_know() -> None:
    """A stranger who could name an object before it comes could register another one's children for it."""
    first, second = (packed(letter.content(written(head))) for head in (b"one", b"two"))
    shared = set(first[1]) & set(second[1])
    assert {first[1][name].split(b" ")[0] for name in shared} == {b"ArrayChunk"}
    empty = [packed(letter.content(written(head, b"")))[1] for head in (b"one", b"two")]
    assert not set(empty[0]) & set(empty[1])


@pytest.mark.parametrize("name", OTHER_RECORDS)
def test_other_records_are_no_letter(name: str) -> None:
    root, parts = packed(OTHER_RECORDS[name])
    with pytest.raises(WireError):
        letter.read(root, dict(parts), LIMIT)


@pytest.mark.parametrize("name", BENT)
def test_a_bent_tree_is_no_letter(name: str) -> None:
    root, parts = bent(*BENT[name])
    with pytest.raises(WireError):
        letter.read(root, dict(parts), LIMIT)


def test_an_unbent_tree_is_a_letter() -> None:
    root, parts = bent("Array", array())
    assert letter.read(root, dict(parts), LIMIT) == written(payload=bytes(100))


def test_a_repeated_chunk_takes_no_memory() -> None:
    chunk = sealed("ArrayChunk", [], bytes(1 << 20))
    most = letter.most_objects(1 << 26)

    def change(kind: str, children: list[str], body: bytes) -> bytes:
        return array(arraychunk_ids=[0] * most)(kind, [named(chunk)], body)

    root, parts = bent("Array", change)
    parts[named(chunk)] = chunk
    tracemalloc.start()
    with pytest.raises(WireError):
        letter.read(root, dict(parts), 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_changed_is_a_wire_error_or_the_same(data: st.DataObject) -> None:
    wanted = written(payload=bytes(range(200)))
    root, parts = packed(letter.content(wanted))
    name = data.draw(st.sampled_from(sorted(parts)))
    content = parts[name]
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(start + 40, len(content))))
    parts[name] = content[:start] + data.draw(st.binary(max_size=20)) + content[end:]
    with suppress(WireError):
        assert letter.read(root, dict(parts), LIMIT) == wanted  # the message's own metadata is never looked at


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), st.binary(max_size=60)))
def test_arbitrary_objects_are_a_wire_error(parts: Parts) -> None:
    with pytest.raises(WireError):
        letter.read("a", dict(parts), LIMIT)


def tree(depth: int, width: int) -> ObjectTree:
    made = ObjectTree(object_id="0" * 64)
    for _ in range(depth - 1):
        made = ObjectTree(object_id="0" * 64, children=[made] * width)
    return made


@pytest.mark.parametrize(
    "bad",
    [
        tree(7, 1),
        tree(90, 1),
        tree(2, 20_000),
        tree(3, 100),
        ObjectTree(object_id=""),
        ObjectTree(object_id="g" * 64),
        ObjectTree(object_id="A" * 64),
        ObjectTree(object_id="0" * 63),
        ObjectTree(object_id="0x" + "0" * 62),
        ObjectTree(object_id="1_" * 32),
        ObjectTree(object_id="٣" * 64),
        ObjectTree(object_id="0" * 64, children=[ObjectTree(object_id="../../etc/passwd")]),
    ],
    ids=lambda bad: f"{bad.object_id[:6]}-{bad.ByteSize()}",
)
def test_trees_that_no_letter_has(bad: ObjectTree) -> None:
    with pytest.raises(WireError):
        letter.tree_ids(bad, 20)
