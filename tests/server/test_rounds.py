"""A study that is cut after any reply goes on to the same end; slow, absent and stale sites are named and left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_server import node as nodes
from fedser_server import rounds as study_rounds
from fedser_server import tls
from fedser_server.checkpoint import Checkpoints, goes_with
from fedser_server.guard import Guard
from fedser_server.journal import Journal, status, tail
from fedser_server.serving import Serving
from fedser_server.settings import StudySettings
from fedser_server.state import State

from fedser import bundle as bundles
from fedser.adapt import Schedule
from fedser.bundle import Bundle
from fedser.bundle.keys import SigningKey
from fedser.compute import generator
from fedser.errors import ConfigError, OutputError, QuorumError, StateError
from fedser.federation import wire
from fedser.federation.flower import environment
from fedser.federation.policy import Policy
from fedser.federation.provider import Silence
from fedser.federation.site import Site
from fedser.federation.stages import LocalData

environment.prepare(Path("/nonexistent"))

from fedser.federation.flower.credentials import Credentials  # noqa: E402
from fedser.federation.flower.mailroom import Mailroom  # noqa: E402
from fedser.federation.flower.routes import Routes  # noqa: E402
from fedser.federation.flower.site import Line  # noqa: E402

ROUNDS = 3


class CutError(BaseException):
    """Stands for SIGKILL: nothing of the program may catch it."""


def key(number: int) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))


@dataclass
class Post:
    """A transport over sites in this process; ``cut_after`` replies it dies, before or after the site computed."""

    sites: dict[str, Site]
    silent: dict[str, str] = field(default_factory=dict)
    cut_after: int = 10**9
    computed: bool = False
    orders: list[tuple[str, bytes]] = field(default_factory=list)

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        for site, order in orders:
            self.orders.append((site, order))
            last = len(self.orders) > self.cut_after
            if last and not self.computed:
                raise CutError
            reply = self.sites[site].answer(order) if site not in self.silent else Silence(self.silent[site])
            if last:
                raise CutError
            yield site, reply


@dataclass
class Study:
    """A provider's folder, and what it takes to run its rounds over any transport."""

    folder: Path
    bundle: Any
    settings: StudySettings
    names: tuple[str, ...] = ("site-1", "site-2", "site-3")

    def __post_init__(self) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.plan = study_rounds.plan("study", self.settings, self.bundle)

    def sites(self) -> dict[str, Site]:
        return {name: self.site(name) for name in self.names}

    def site(self, name: str) -> Site:
        number = int(name[-1])
        model = self.bundle.classifier()
        x = torch.randn(24, *model.shape, generator=generator("rounds", number))
        return Site(name, "study", LocalData(model, x, 2), Policy(), key(number), key(99).public_hex)

    def rounds(self, transport: Any, settings: StudySettings | None = None, **changes: Any) -> study_rounds.Rounds:
        chosen = settings or self.settings
        digest = goes_with(chosen.science(), self.bundle.digest)
        parts = {
            "key": key(99),
            "transport": transport,
            "enrolled": lambda: {name: key(int(name[-1])).public_hex for name in self.names},
            "online": lambda: set(self.names),
            "checkpoints": Checkpoints(self.folder, "study", digest),
            "journal": Journal(self.folder),
        }
        return study_rounds.Rounds(self.plan, chosen, self.bundle, **(parts | changes))

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in tail(self.folder, 1000) if event["event"] == kind]


@pytest.fixture(scope="module")
def source(signed: Any) -> Bundle:
    return bundles.read(signed.path, signer=signed.signer)


@pytest.fixture
def study(source: Bundle, tmp_path: Path) -> Study:
    schedule = Schedule(steps=7, batch_size=16)
    settings = StudySettings(sites=3, rounds=ROUNDS, quorum=2, schedule=schedule, aggregation={"momentum": 0.5})
    return Study(tmp_path / "provider", source, settings)


@pytest.fixture(scope="module")
def undisturbed(source: Bundle, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    schedule = Schedule(steps=7, batch_size=16)
    settings = StudySettings(sites=3, rounds=ROUNDS, quorum=2, schedule=schedule, aggregation={"momentum": 0.5})
    whole = Study(tmp_path_factory.mktemp("whole") / "provider", source, settings)
    return whole.rounds(Post(whole.sites())).run()


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 6, 8, 9, 11])
def test_a_study_cut_after_any_reply_ends_bit_for_bit_the_same(
    study: Study, undisturbed: torch.Tensor, after: int, computed: bool
) -> None:
    sites = study.sites()
    first = Post(sites, cut_after=after, computed=computed)
    with pytest.raises(CutError):
        study.rounds(first).run()
    done = after // len(sites)
    second = Post(sites)
    last = study.rounds(second).run()
    assert torch.equal(last, undisturbed)
    # no completed round is asked for again, and those in flight are asked for with the same bytes
    asked = {(site, wire.decode_order(order, key(99).public_hex)[0].round): order for site, order in first.orders}
    again = {(site, wire.decode_order(order, key(99).public_hex)[0].round): order for site, order in second.orders}
    assert min(number for _, number in again) == done + 1
    assert all(again[name] == order for name, order in asked.items() if name in again)
    assert all(site.state.personal for site in sites.values())


def test_a_cut_in_every_round_in_turn(study: Study, undisturbed: torch.Tensor) -> None:
    sites = study.sites()
    for _ in range(ROUNDS):
        with pytest.raises(CutError):
            study.rounds(Post(sites, cut_after=4, computed=True)).run()
    assert torch.equal(study.rounds(Post(sites)).run(), undisturbed)


def test_a_finished_study_asks_only_those_that_did_not_answer(study: Study, undisturbed: torch.Tensor) -> None:
    sites = study.sites()
    post = Post(sites)
    study.rounds(post).run()
    told = status(study.folder)
    assert (told["phase"], told["round"], told["finished"]) == ("done", ROUNDS, list(study.names))
    again = Post(sites)
    assert torch.equal(study.rounds(again).run(finished=frozenset(study.names[:2])), undisturbed)
    assert [site for site, _ in again.orders] == ["site-3"]
    assert again.orders[0] in post.orders  # answered with the stored bytes


def test_a_site_that_finished_before_the_cut_is_not_asked_again(study: Study, undisturbed: torch.Tensor) -> None:
    sites = study.sites()
    with pytest.raises(CutError):  # two answers to the order to finish came, and the third site was not asked
        study.rounds(Post(sites, cut_after=3 * ROUNDS + 2)).run()
    finished = status(study.folder)["finished"]
    assert finished == ["site-1", "site-2"]
    again = Post(sites)
    assert torch.equal(study.rounds(again).run(finished=frozenset(finished)), undisturbed)
    assert [site for site, _ in again.orders] == ["site-3"]


def test_orders_that_expired_meanwhile_are_sent_with_a_larger_attempt(
    study: Study, undisturbed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = study.sites()
    with pytest.raises(CutError):
        study.rounds(Post(sites, cut_after=4, computed=True)).run()
    clock, later = time.time, 8 * 86_400
    monkeypatch.setattr(time, "time", lambda: clock() + later)
    for site in sites.values():
        site._gate._clock = time.time
    post = Post(sites)
    assert torch.equal(study.rounds(post).run(), undisturbed)
    found = [wire.decode_order(order, key(99).public_hex)[0] for _, order in post.orders]
    assert {order.attempt for order in found if order.round == 2} == {1}


def test_a_lost_checkpoint_is_computed_again_by_sites_that_saw_the_round(
    study: Study, undisturbed: torch.Tensor
) -> None:
    """The newest file is damaged before its successor's orders left: the round before it is run again."""
    sites = study.sites()
    with pytest.raises(CutError):
        study.rounds(Post(sites, cut_after=6)).run()  # two rounds are done, nobody computed the third
    path = study.folder / "checkpoints" / "round-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    post = Post(sites)
    runs = study.rounds(post)
    assert torch.equal(runs.run(), undisturbed)
    found = [wire.decode_order(order, key(99).public_hex)[0] for _, order in post.orders]
    assert min((order.round, order.attempt) for order in found) == (2, 1)


def test_too_few_updates_end_with_the_quorums_code_and_names(study: Study) -> None:
    post = Post(study.sites(), silent={"site-1": "it is away", "site-3": "it is slow"})
    with pytest.raises(QuorumError) as caught:
        study.rounds(post).run()
    assert caught.value.exit_code == 32
    assert "site-1: it is away" in caught.value.hint
    assert "site-3: it is slow" in caught.value.hint
    assert status(study.folder)["phase"] == "failed"
    assert Checkpoints(study.folder, "study", "0" * 64).load() is None  # nothing was written down


def test_after_a_failed_round_the_study_goes_on(study: Study, undisturbed: torch.Tensor) -> None:
    sites = study.sites()
    with pytest.raises(QuorumError):
        study.rounds(Post(sites, silent={"site-1": "away", "site-3": "away"})).run()
    assert torch.equal(study.rounds(Post(sites)).run(), undisturbed)


def test_other_settings_than_the_checkpoints_are_refused(study: Study) -> None:
    sites = study.sites()
    with pytest.raises(CutError):
        study.rounds(Post(sites, cut_after=4)).run()
    other = study.settings.model_copy(update={"seed": 5})
    post = Post(sites)
    with pytest.raises(StateError, match="other settings"):
        study.rounds(post, other).run()
    assert not post.orders


def test_a_disk_that_is_full_stops_the_study_and_loses_no_round(
    study: Study, undisturbed: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = study.sites()
    save = Checkpoints.save

    def full(store: Checkpoints, checkpoint: Any) -> Path:
        if checkpoint.round == 2:
            raise OutputError("The disk is full.", "Free some space.")
        return save(store, checkpoint)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        with pytest.raises(OutputError):
            study.rounds(Post(sites)).run()
    assert torch.equal(study.rounds(Post(sites)).run(), undisturbed)


def test_sites_that_do_not_come_end_the_waiting(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    runs = study.rounds(Post({}), online=lambda: {"site-1", "a stranger"})
    with pytest.raises(QuorumError, match="1 of 3 sites came") as caught:
        runs.run(wait=0.3)
    assert caught.value.exit_code == 32
    assert status(study.folder)["phase"] == "waiting"
    assert "waiting for 3 sites: 3 enrolled, 1 online" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"method": {"name": "bn"}}, {"personal": 0.99}])
def test_a_study_in_which_nothing_would_travel_is_refused(study: Study, change: dict[str, Any]) -> None:
    chosen = StudySettings.model_validate(study.settings.model_dump() | change)
    with pytest.raises(ConfigError, match="Nothing would travel"):
        study_rounds.plan("study", chosen, study.bundle)


# --- over real routes ------------------------------------------------------------------------------------------------


class Net:
    """A mailroom behind guard, credentials and TLS, and sites in threads."""

    def __init__(self, study: Study, **options: Any) -> None:
        self.study = study
        self.room = Mailroom(1 << 20, **options)
        self.state = State.open(study.folder.parent / "state")
        self.keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in study.names}
        known = {}
        for name, own in self.keys.items():
            pem = nodes_key(own)
            self.room.admit(name, pem)
            known[pem] = name
        credentials, records = Credentials(), Journal(study.folder)
        fleet = Routes(self.room, hold=1.0, record=records.record)
        ways = nodes._fleet_ways(fleet, 1 << 20)
        guard = Guard(ways, lambda h: known[credentials.check(h, known)], lambda peer: True, records.record)
        self.serving = Serving(guard, tls.LiveContext(self.state.certificates()), "127.0.0.1", 0)
        self.over = threading.Event()
        self.threads: list[threading.Thread] = []

    def line(self, name: str) -> Line:
        return Line(
            f"localhost:{self.serving.port}", tls.client_context([self.state.ca]), self.keys[name], limit=1 << 20
        )

    def start(self, name: str, answer: Callable[[bytes], bytes | None]) -> None:
        def work() -> None:
            with self.line(name) as line:
                while not self.over.is_set():
                    order = line.receive()
                    if order is None:
                        continue
                    reply = answer(order.data)
                    if reply is None:  # it dies
                        line._end.set()
                        return
                    line.reply(order, reply)

        def quietly() -> None:
            try:
                work()
            except Exception:  # the provider stops in the end
                if not self.over.is_set():
                    raise

        self.threads.append(threading.Thread(target=quietly, daemon=True))
        self.threads[-1].start()

    def __enter__(self) -> Net:
        self.serving.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.room.close()
        for thread in self.threads:
            thread.join(10)
        self.serving.__exit__()


def nodes_key(private: ec.EllipticCurvePrivateKey) -> bytes:
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    return public_key_to_bytes(private.public_key())


def test_slow_absent_and_stale_sites_are_named_and_the_rounds_go_on(
    source: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = StudySettings(sites=5, rounds=2, quorum=2, schedule=Schedule(steps=4, batch_size=16))
    names = tuple(f"site-{n}" for n in range(1, 6))
    study = Study(tmp_path / "provider", source, settings, names)
    sites, one_at_a_time = study.sites(), threading.Lock()
    old: dict[int, bytes] = {}
    went = threading.Event()

    def honest(name: str) -> Callable[[bytes], bytes]:
        def answer(order: bytes) -> bytes:
            with one_at_a_time:  # dropout draws from the process' own random numbers
                return sites[name].answer(order)

        return answer

    def stale(order: bytes) -> bytes:
        number = wire.decode_order(order, key(99).public_hex)[0].round
        old[number] = honest("site-5")(order)
        return old[1]

    def slow(order: bytes) -> bytes:
        net.over.wait(20)  # ten times the deadline
        return b"\0" * 8

    def vanish(order: bytes) -> None:
        went.set()

    with Net(study, deadline=2.0, patience=1.0) as net:
        for name, answer in zip(names, (honest("site-1"), honest("site-2"), slow, vanish, stale), strict=True):
            net.start(name, answer)
        while net.room.online() < set(names):
            time.sleep(0.01)
        last = study.rounds(net.room).run()
        assert went.is_set()
    refused = {(e["round"], e["site"]): e["why"] for e in study.events("no update")}
    assert "deadline" in refused[1, "site-3"] or "vanished" in refused[1, "site-3"]
    assert "vanished" in refused[1, "site-4"] or "deadline" in refused[1, "site-4"]
    assert "another order" in refused[2, "site-5"]
    assert {name for _, name in refused} == {"site-3", "site-4", "site-5"}
    assert {(e["round"], e["site"]) for e in study.events("answered")} >= {
        (number, name) for number in (1, 2) for name in ("site-1", "site-2")
    }
    told = capsys.readouterr().err
    assert "without site-" in told
    assert "round 2 of 2: 2 of 5 sites answered" in told
    assert "without the last model: site-3, site-4, site-5" in told
    control = Study(tmp_path / "control", source, settings, names)  # the same without a network
    left_out = dict.fromkeys(("site-3", "site-4"), "left out")

    class Without(Post):
        def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
            for site, reply in super().exchange(orders):
                number = wire.decode_order(self.orders[-1][1], key(99).public_hex)[0].round
                yield site, Silence("left out") if site == "site-5" and number > 1 else reply

    assert torch.equal(last, control.rounds(Without(control.sites(), silent=left_out)).run())


def test_replies_stay_what_they_are_after_a_long_break(study: Study) -> None:
    """Sites that come and go between rounds change nothing for the others: the roster is looked at for each round."""
    sites = study.sites()
    present = [("site-1", "site-2"), ("site-1", "site-2", "site-3")]
    looks = iter([*present, *[study.names] * 50])
    runs = study.rounds(
        Post(sites), enrolled=lambda: {name: key(int(name[-1])).public_hex for name in next(looks, study.names)}
    )
    runs._wait = lambda *_: None  # type: ignore[method-assign]
    runs.run()
    assert [e["site"] for e in study.events("answered") if e["round"] == 1] == ["site-1", "site-2"]
    assert len([e for e in study.events("answered") if e["round"] == 2]) == 3
