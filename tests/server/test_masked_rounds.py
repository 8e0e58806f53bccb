"""A study of masked sums that is cut after any message begins the round anew, with new keys, and ends the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fedser_server.settings import StudySettings

from fedser import bundle as bundles
from fedser.adapt import Schedule
from fedser.bundle import Bundle
from fedser.errors import QuorumError
from fedser.federation import wire
from fedser.federation.provider import Silence
from fedser.federation.schema import Order
from fedser.federation.secure_schema import MaskedUpdate, MaskKeys, Unmask
from tests.server.test_rounds import CutError, Net, Post, Study, key

ROUNDS, SITES = 2, 3
SETTINGS: dict[str, Any] = {
    "rounds": ROUNDS,
    "quorum": 2,
    "schedule": Schedule(steps=5, batch_size=16),
    "masked": True,
}


@pytest.fixture(scope="module")
def source(signed: Any) -> Bundle:
    return bundles.read(signed.path, signer=signed.signer)


def study_of(source: Bundle, folder: Path, sites: int = SITES, **changes: Any) -> Study:
    settings = StudySettings(sites=sites, **{**SETTINGS, **changes})
    return Study(folder / "provider", source, settings, tuple(f"site-{n}" for n in range(1, sites + 1)))


@pytest.fixture(scope="module")
def undisturbed(source: Bundle, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    whole = study_of(source, tmp_path_factory.mktemp("whole"))
    return whole.rounds(Post(whole.sites())).run()


def asked(post: Post) -> list[tuple[str, Any]]:
    return [(site, wire.read(order, key(99).public_hex).message) for site, order in post.orders]


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("after", [0, 4, 7, 10, 13, 14, 22])
def test_a_masked_study_cut_after_any_message_ends_bit_for_bit_the_same(
    source: Bundle, tmp_path: Path, undisturbed: torch.Tensor, after: int, computed: bool
) -> None:
    study = study_of(source, tmp_path)
    sites = study.sites()
    first = Post(sites, cut_after=after, computed=computed)
    with pytest.raises(CutError):
        study.rounds(first).run()
    second = Post(sites)
    assert torch.equal(study.rounds(second).run(), undisturbed)
    before = {(message.round, message.attempt) for _, message in asked(first)}
    again = {(message.round, message.attempt) for _, message in asked(second) if not isinstance(message, Order)}
    assert not before & again  # what was cut off is given up: no message of its attempt is sent again
    assert all(site.state.personal for site in sites.values())


def test_a_cut_round_is_masked_with_other_keys(source: Bundle, tmp_path: Path) -> None:
    study = study_of(source, tmp_path)
    sites, replies = study.sites(), list[tuple[str, wire.Opened]]()
    for site in sites.values():
        answer = site.answer

        def told(data: bytes, answer: Callable[[bytes], bytes] = answer, name: str = site.name) -> bytes:
            reply = answer(data)
            replies.append((name, wire.read(reply, key(int(name[-1])).public_hex)))
            return reply

        site.answer = told  # type: ignore[method-assign]
    for _ in range(3):
        with pytest.raises(CutError):
            study.rounds(Post(sites, cut_after=10, computed=True)).run()
    keys = [opened.message.agreement for _, opened in replies if isinstance(opened.message, MaskKeys)]
    payloads = [opened.flat.numpy().tobytes() for _, opened in replies if isinstance(opened.message, MaskedUpdate)]
    assert (len(keys), len(payloads)) == (9, 9)  # three attempts of three sites at the same updates
    assert len(set(keys)) == len(set(payloads)) == 9


def test_too_few_sites_end_with_the_quorums_code_and_the_step(source: Bundle, tmp_path: Path) -> None:
    study = study_of(source, tmp_path)
    with pytest.raises(QuorumError, match="masked sum of round 1 has 2 keys, and 3 are needed") as told:
        study.rounds(Post(study.sites(), silent={"site-2": "gone"})).run()
    assert "site-2: gone" in told.value.hint


def test_a_masked_study_over_real_routes_loses_a_site_at_each_step(
    source: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mailroom, guard and TLS: one site vanishes before its upload, one after it; the sum is that of the uploads."""
    study = study_of(source, tmp_path, 5, rounds=1, quorum=3, masking={"threshold": 3})
    sites, one_at_a_time = study.sites(), threading.Lock()

    def until(name: str, kind: type | None) -> Callable[[bytes], bytes | None]:
        def answer(order: bytes) -> bytes | None:
            message = wire.read(order, key(99).public_hex).message
            if kind is not None and isinstance(message, kind):
                return None
            with one_at_a_time:
                return sites[name].answer(order)

        return answer

    leaves = {"site-4": Order, "site-5": Unmask}
    with Net(study, deadline=2.0, patience=1.0) as net:
        for name in study.names:
            net.start(name, until(name, leaves.get(name)))
        while net.room.online() < set(study.names):
            time.sleep(0.01)
        last = study.rounds(net.room).run()
    told = capsys.readouterr().err
    assert "round 1 of 1: 4 of 5 sites answered" in told
    assert {event["site"] for event in study.events("answered") if event["round"] == 1} == set(study.names) - {"site-4"}
    assert torch.equal(last, control_without(source, tmp_path, "site-4"))


def control_without(source: Bundle, folder: Path, left_out: str) -> torch.Tensor:
    """The same study in one process, with one site silent from its order on."""
    (folder / "control").mkdir()
    study = study_of(source, folder / "control", 5, rounds=1, quorum=3, masking={"threshold": 3})

    class Without(Post):
        def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
            for site, reply in super().exchange(orders):
                late = isinstance(wire.read(self.orders[-1][1], key(99).public_hex).message, Order)
                yield site, Silence("gone") if late and site == left_out else reply

    return study.rounds(Without(study.sites())).run()
