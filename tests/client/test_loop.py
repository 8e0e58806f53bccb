"""The rounds survive cuts, kills, repeats and refusals; the end is the one of an undisturbed run, bit for bit."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fedser_client import keys, loop
from fedser_client.data import SiteData, prepare
from fedser_client.loop import Rounds, WatchedLog
from fedser_client.patience import Patience
from fedser_client.state import SiteFolder

from fedser import bundle as bundles
from fedser.adapt import Schedule, make
from fedser.bundle.keys import SigningKey
from fedser.errors import EnrolmentError, NetworkError
from fedser.evaluate.federate import InProcess
from fedser.federation import site_state
from fedser.federation.audit import read
from fedser.federation.layout import pack
from fedser.federation.policy import Policy
from fedser.federation.provider import Plan, Provider, travelling
from fedser.federation.site import Site
from fedser.federation.stages import apply_update, average


class KilledError(BaseException):
    """Stands for SIGKILL: nothing of the program may catch it."""


@dataclass(frozen=True)
class Mail:
    data: bytes


@dataclass
class Post:
    """The provider's side of a transport that a site can leave and come back to."""

    orders: queue.Queue[bytes] = field(default_factory=queue.Queue)
    replies: queue.Queue[bytes] = field(default_factory=queue.Queue)
    flying: bytes | None = None
    sent: list[bytes] = field(default_factory=list)

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for site, order in orders:
            self.flying = order
            self.orders.put(order)
            yield site, self.replies.get(timeout=30)


@dataclass
class Line:
    """A site's side; ``fault(moment, number)`` may raise at each moment of the number-th line."""

    post: Post
    fault: Callable[[str], None]

    def __enter__(self) -> Line:
        self.fault("enter")
        if self.post.flying is not None and self.post.orders.empty():
            self.post.orders.put(self.post.flying)  # the order in flight was lost with the old line
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def receive(self) -> Mail | None:
        self.fault("receive")
        try:
            mail = Mail(self.post.orders.get(timeout=0.1))
        except queue.Empty:
            return None
        self.fault("received")
        return mail

    def reply(self, order: Mail, data: bytes) -> bool:
        self.fault("answered")
        self.post.sent.append(data)
        if self.post.flying == order.data:
            self.post.flying = None
            self.post.replies.put(data)
        self.fault("sent")
        return True


@pytest.fixture(scope="module")
def data(signed: Any, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> SiteData:
    from fedser_client.settings import SiteSettings

    bundle = bundles.read(signed.path, signer=signed.signer)
    zeros = "0" * 64
    own = SiteSettings(
        study="study", site="site-1", address="a:1", ca="", order_key=zeros, bundle_key=zeros, data=recordings
    )
    return prepare(bundle, own, torch.device("cpu"))


@dataclass
class World:
    """One site's folder, and a provider in a thread."""

    folder: SiteFolder
    settings: Any
    data: SiteData
    order_key: SigningKey
    post: Post = field(default_factory=Post)
    policy: Policy = field(default_factory=Policy)
    fault: Callable[[str], None] = lambda moment: None
    refreshed: int = 0
    provider_error: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.remember(self.settings)
        self.key = keys.reply_key(self.folder)
        self.provider = self.make(self.post)
        model = self.data.local.model
        self.start = pack(dict(model.named_parameters()), self.provider.plan.layout)

    def make(self, transport: Any, key: SigningKey | None = None, **changes: Any) -> Provider:
        layout = travelling(self.data.local.model, make("ecan", {}), Policy())
        plan = Plan(
            study="study",
            sites={"site-1": self.key.public_hex},
            method="ecan",
            options={},
            layout=layout,
            schedule=Schedule(steps=8, batch_size=16),
            rounds=3,
            personal_steps=2,
            quorum=0,
            **changes,
        )
        return Provider(plan, key or self.order_key, transport, (average(), apply_update()))

    def first_refusal(self) -> str:
        """Its code; the provider's thread reads an answer some time after it has left."""
        deadline = time.monotonic() + 20
        while not self.provider.refusals and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.provider.refusals[0].code if self.provider.refusals else ""

    def serve(self) -> threading.Thread:
        def work() -> None:
            try:
                self.provider.run(self.start)
            except BaseException as error:
                self.provider_error.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def rounds(self, **changes: Any) -> Rounds:
        def refresh() -> Any:
            self.refreshed += 1
            return self.settings

        values: dict[str, Any] = {
            "folder": self.folder,
            "data": self.data.local,
            "policy": self.policy,
            "key": self.key,
            "audit": WatchedLog(self.folder.file("audit.jsonl")),
            "rounds": 3,
            "refresh": refresh,
            "open": lambda settings: Line(self.post, self.fault),
            "patience": Patience(20.0, sleep=lambda pause: None),
        }
        return Rounds(**(values | changes))

    def personal(self) -> dict[str, torch.Tensor]:
        state = site_state.load(self.folder.file("state.safetensors"))
        assert state is not None
        return dict(state.personal)

    def events(self) -> list[tuple[str, int | None]]:
        return [(record["event"], record.get("round")) for record in read(self.folder.file("audit.jsonl"))]


@pytest.fixture
def world(folder: Any, settings: Any, data: SiteData, order_key: SigningKey) -> World:
    return World(folder, settings.model_copy(update={"token": None}), data, order_key)


@pytest.fixture
def undisturbed(world: World) -> dict[str, torch.Tensor]:
    """The personal model of the same study without a network."""
    site = Site("site-1", "study", world.data.local, Policy(), world.key, world.order_key.public_hex)
    world.make(InProcess({"site-1": site})).run(world.start)
    return dict(site.state.personal)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return bool(first) and first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def once_at(moment: str, number: int, error: BaseException) -> Callable[[str], None]:
    """A fault that strikes the number-th time that a moment comes, and never again."""
    left = [number]

    def fault(now: str) -> None:
        if now == moment:
            left[0] -= 1
            if left[0] == 0:
                raise error

    return fault


def test_a_study_over_lines_ends_as_in_one_process(
    world: World, undisturbed: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    thread = world.serve()
    assert world.rounds().run()
    thread.join(10)
    assert same(world.personal(), undisturbed)
    assert world.events() == [("update", 1), ("update", 2), ("update", 3), ("finished", 4)]
    told = capsys.readouterr().err
    assert "round 3 of 3: 12 utterances, 2 steps, " in told
    assert " left this site, " in told
    status = world.folder.status()
    assert (status["orders"], status["refusals"]) == (4, 0)
    assert status["bytes"] == sum(len(reply) for reply in world.post.sent)
    assert not world.provider_error


@pytest.mark.parametrize("moment", ["received", "answered", "sent"])
@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("cut", [NetworkError("The line is cut."), KilledError()], ids=["cut", "killed"])
def test_a_cut_or_a_kill_at_any_moment_changes_nothing(
    world: World,
    undisturbed: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    number: int,
    cut: BaseException,
) -> None:
    monkeypatch.setattr(loop, "LAST_MOMENT", 1.5)
    world.fault = once_at(moment, number, cut)
    thread = world.serve()
    finished = False
    for _ in range(2):
        try:
            finished = world.rounds().run()
            break
        except KilledError:
            continue
    assert finished
    thread.join(10)
    assert not thread.is_alive()
    assert same(world.personal(), undisturbed)
    computed = [event for event in world.events() if event[0] in ("update", "finished")]
    assert computed == [("update", 1), ("update", 2), ("update", 3), ("finished", 4)]  # no order is computed twice
    again = [event for event in world.events() if event[0] == "resent"]
    assert len(again) == (moment == "answered")
    assert not world.provider.refusals


@pytest.mark.parametrize("number", [1, 3, 4])
@pytest.mark.parametrize("after", [False, True])
def test_a_kill_around_the_saving_of_the_state_changes_nothing(
    world: World,
    undisturbed: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    after: bool,
) -> None:
    strike, save = once_at("save", number, KilledError()), site_state.save

    def deadly(path: Path, state: Any) -> None:
        if after:
            save(path, state)
        strike("save")
        save(path, state)

    monkeypatch.setattr(loop.site_state, "save", deadly)
    thread = world.serve()
    with pytest.raises(KilledError):
        world.rounds().run()
    assert world.rounds().run()
    thread.join(10)
    assert same(world.personal(), undisturbed)
    if after:  # saved, never recorded: it leaves as a repeat, and is recorded as one
        assert ("resent", number) in world.events()
    assert not world.provider.refusals


def test_nothing_leaves_that_the_audit_log_does_not_hold(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LAST_MOMENT", 1.5)
    world.fault = once_at("answered", 2, NetworkError("The line is cut."))
    world.serve()
    assert world.rounds().run()
    recorded = [r for r in read(world.folder.file("audit.jsonl")) if r["event"] != "enrolment"]
    sizes = [record["bytes"] for record in recorded]
    for reply in world.post.sent:
        sizes.remove(len(reply))  # each message that left stands in the log


def test_a_refused_order_is_told_and_the_site_goes_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.policy = Policy(methods=("shot",))
    world.serve()
    assert not world.rounds().run(once=True)
    assert world.first_refusal() == "METHOD"
    assert "METHOD" in capsys.readouterr().err
    world.policy = Policy()
    assert world.rounds().run()
    assert [event for event, _ in world.events()].count("refusal") == 1
    assert world.folder.status()["refusals"] == 1


def test_once_answers_one_order(world: World) -> None:
    world.serve()
    assert not world.rounds().run(once=True)
    assert world.events() == [("update", 1)]
    assert world.rounds().run()


def test_a_provider_that_is_away_is_told_once_and_waited_for(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    missing = [3]

    def fault(moment: str) -> None:
        if moment == "enter" and missing[0]:
            missing[0] -= 1
            raise NetworkError("The provider cannot be reached.")

    world.fault = fault
    world.serve()
    assert world.rounds().run()
    told = capsys.readouterr().err
    assert told.count("Trying again") == 1
    assert told.count("answers again") == 1


def test_a_provider_that_stays_away_ends_the_patience(world: World) -> None:
    def gone(moment: str) -> None:
        raise NetworkError("The provider cannot be reached.")

    world.fault = gone
    now = [0.0]
    patience = Patience(100.0, sleep=lambda pause: now.__setitem__(0, now[0] + pause), clock=lambda: now[0])
    with pytest.raises(NetworkError):
        world.rounds(patience=patience).run()
    assert now[0] <= 100


def test_a_site_that_is_not_known_any_more_stops(world: World) -> None:
    def unknown(moment: str) -> None:
        raise EnrolmentError("The provider does not let this site in.", "Ask.")

    world.fault = unknown
    with pytest.raises(EnrolmentError):
        world.rounds().run()
    assert world.refreshed == 5


def test_a_key_that_was_renewed_while_the_line_was_open_is_learnt(world: World, tmp_path: Path) -> None:
    from fedser.bundle.keys import create

    new = create(tmp_path / "new")
    world.provider = world.make(world.post, new)
    told = [world.settings, world.settings.model_copy(update={"trusted_key": new.public_hex})]
    world.serve()
    assert world.rounds(refresh=lambda: told.pop(0) if len(told) > 1 else told[0]).run()
    assert [event for event, _ in world.events()] == ["refusal", "update", "update", "update", "finished"]
    assert not world.provider.refusals  # the refusal was recorded, and not sent


def test_an_order_of_a_stranger_is_refused(world: World, tmp_path: Path) -> None:
    from fedser.bundle.keys import create

    world.provider = world.make(world.post, create(tmp_path / "stranger"))
    world.serve()
    assert not world.rounds().run(once=True)
    assert world.first_refusal() == "MALFORMED"


def test_an_expired_order_hints_at_the_clock(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.provider = world.make(world.post, lifetime=-60)
    world.serve()
    assert not world.rounds().run(once=True)
    assert world.first_refusal() == "EXPIRED"
    assert "clock" in capsys.readouterr().err
