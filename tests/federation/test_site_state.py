"""A site's state on disk, and what a crash between any two steps of an answer leaves behind."""

from __future__ import annotations

import hashlib
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedser.errors import FedserError, OutputError, StateError
from fedser.federation import site_state, wire
from fedser.federation.audit import AuditLog, read
from fedser.federation.local import adapt_locally
from fedser.federation.site import Site
from fedser.federation.stages import SiteState


def same(a: SiteState, b: SiteState) -> bool:
    for field in fields(SiteState):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if not isinstance(left, dict):
            if left != right:
                return False
        elif left.keys() != right.keys() or not all(
            torch.equal(left[n], right[n]) and left[n].dtype == right[n].dtype for n in left
        ):
            return False
    return True


class Node:
    """A site whose state and log lie in a folder, as on a real node; ``computed`` counts its site steps."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder, self.computed = lab, folder, 0
        self.start()

    def start(self, **options: Any) -> Site:
        def step(work: Any) -> Any:
            self.computed += 1
            return adapt_locally(work)

        path = self.folder / "site.safetensors"
        defaults = {
            "audit": AuditLog(self.folder / "audit.jsonl"),
            "state": site_state.load(path),
            "keep": lambda state: site_state.save(path, state),
            "stages": (step,),
        }
        self.site = self.lab.site(1, **{**defaults, **options})
        return self.site

    def events(self) -> list[str]:
        path = self.folder / "audit.jsonl"
        return [record["event"] for record in read(path)] if path.exists() else []


@pytest.fixture
def node(lab: Any, tmp_path: Path) -> Node:
    return Node(lab, tmp_path)


def order_bytes(lab: Any, number: int = 1, attempt: int = 0, phase: str = "train", shift: float = 0.0) -> bytes:
    plan = lab.plan({"site-1": None}, steps=6, rounds=2, personal_steps=2)
    provider = lab.provider({}, plan)
    tensors = lab.start(plan) + shift
    order = replace(provider.order(number, "site-1", phase, tensors), attempt=attempt, expires=2**40)
    return wire.encode(order, tensors, lab.order_key)


def tensor(lab: Any, reply: bytes) -> torch.Tensor:
    return wire.decode_reply(reply, lab.key(1).public_hex)[1]


def test_a_state_comes_back_bit_for_bit_and_is_the_owners_alone(node: Node, lab: Any) -> None:
    path = node.folder / "site.safetensors"
    assert site_state.load(path) is None
    for order in (order_bytes(lab), order_bytes(lab, 2), order_bytes(lab, 3, phase="finish")):
        node.site.answer(order)
        assert same(site_state.load(path, "study"), node.site.state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert node.site.state.personal
    assert node.site.state.before
    assert {t.dtype for t in node.site.state.own.values()} == {torch.float32, torch.int64}


def test_every_flipped_byte_is_noticed(node: Node, lab: Any) -> None:
    node.site.answer(order_bytes(lab))
    path = node.folder / "site.safetensors"
    whole = path.read_bytes()
    state = node.site.state
    for position in range(0, len(whole), 97):
        data = bytearray(whole)
        data[position] ^= 0x01
        path.write_bytes(bytes(data))
        try:
            assert same(site_state.load(path), state)  # a byte that carries nothing (padding) may differ
        except StateError:
            continue
    for data in (b"", whole[:50], whole[:-1], whole + b"x", b"{}" * 40):
        path.write_bytes(data)
        with pytest.raises(StateError, match="damaged"):
            site_state.load(path)


def test_another_schema_or_study_is_refused(node: Node, lab: Any) -> None:
    node.site.answer(order_bytes(lab))
    path = node.folder / "site.safetensors"
    with pytest.raises(StateError, match="belongs to the study 'study'"):
        site_state.load(path, "another")
    path.write_bytes(path.read_bytes().replace(b'schema_version\\": 1', b'schema_version\\": 2'))
    with pytest.raises(StateError, match="another schema"):
        site_state.load(path)


def test_a_place_that_cannot_be_written_keeps_the_answer_at_home(node: Node, lab: Any) -> None:
    (node.folder / "file").write_text("")
    site = node.start(keep=lambda state: site_state.save(node.folder / "file" / "state", state))
    with pytest.raises(OutputError):
        site.answer(order_bytes(lab))
    assert site.state.round == 0
    assert node.events() == []


def test_a_repeat_after_a_restart_gets_the_stored_bytes_and_is_recorded(node: Node, lab: Any) -> None:
    order = order_bytes(lab)
    reply = node.site.answer(order)
    assert node.start().answer(order) == reply
    assert node.site.answer(order) == reply
    assert node.computed == 1
    assert node.events() == ["update", "resent", "resent"]
    last = list(read(node.folder / "audit.jsonl"))[-1]
    assert (last["bytes"], last["sha256"]) == (len(reply), hashlib.sha256(reply).hexdigest())


class Crashed(Exception):
    """Power went."""


def crash(*_: Any) -> Any:
    raise Crashed


def test_a_crash_before_the_state_is_kept_computes_the_same_bytes_again(node: Node, lab: Any) -> None:
    order = order_bytes(lab)
    with pytest.raises(Crashed):
        node.start(keep=crash).answer(order)
    assert node.events() == []
    reply = node.start().answer(order)
    assert reply == lab.site(1).answer(order)
    assert node.events() == ["update"]


class BrokenLog(AuditLog):
    append = crash


@pytest.mark.parametrize("phase", ["train", "finish"])
def test_a_crash_between_state_and_audit_resends_and_records(node: Node, lab: Any, phase: str) -> None:
    order = order_bytes(lab, 3, phase=phase)
    with pytest.raises(Crashed):
        node.start(audit=BrokenLog()).answer(order)
    assert (node.computed, node.events()) == (1, [])
    reply = node.start().answer(order)
    assert reply == lab.site(1).answer(order)
    assert (node.computed, node.events()) == (1, ["resent"])


def test_a_crash_after_the_audit_resends_and_records_again(node: Node, lab: Any) -> None:
    order = order_bytes(lab)
    node.site.answer(order)  # the reply never reached the socket
    node.start().answer(order)
    assert (node.computed, node.events()) == (1, ["update", "resent"])


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("number", [1, 2])
def test_another_attempt_at_a_round_gives_the_first_ones_update(
    node: Node, lab: Any, number: int, restart: bool
) -> None:
    if number == 2:
        node.site.answer(order_bytes(lab, 1))
    first = node.site.answer(order_bytes(lab, number, shift=0.01))
    own = node.site.state.own
    for attempt in (1, 4):
        if restart:
            node.start()
        again = node.site.answer(order_bytes(lab, number, attempt, shift=0.01))
        assert again != first  # it answers another order
        assert torch.equal(tensor(lab, again), tensor(lab, first))
        assert all(torch.equal(own[name], node.site.state.own[name]) for name in own)
    assert node.computed == number + 2
    following = node.site.answer(order_bytes(lab, number + 1))
    plain = lab.site(1)
    for n in range(1, number + 1):
        plain.answer(order_bytes(lab, n, shift=0.01 if n == number else 0.0))
    assert torch.equal(tensor(lab, following), tensor(lab, plain.answer(order_bytes(lab, number + 1))))


def test_without_the_tensors_of_before_another_attempt_would_differ(node: Node, lab: Any) -> None:
    first = node.site.answer(order_bytes(lab, 1))
    node.site.state = replace(node.site.state, before=node.site.state.own)
    again = node.site.answer(order_bytes(lab, 1, 1))
    assert not torch.equal(tensor(lab, again), tensor(lab, first))


@pytest.mark.parametrize("restart", [False, True])
def test_another_attempt_to_finish_gives_the_same_personal_model(node: Node, lab: Any, restart: bool) -> None:
    node.site.answer(order_bytes(lab, 1))
    node.site.answer(order_bytes(lab, 2))
    node.site.answer(order_bytes(lab, 3, phase="finish"))
    personal = dict(node.site.state.personal)
    if restart:
        node.start()
    node.site.answer(order_bytes(lab, 3, 1, phase="finish"))
    assert personal.keys() == node.site.state.personal.keys()
    assert all(torch.equal(personal[name], node.site.state.personal[name]) for name in personal)


def test_states_errors_are_the_projects_own(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(FedserError):
        site_state.load(tmp_path / "folder")
