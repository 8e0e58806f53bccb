"""The node's whole way, against a provider's real routes: dry run, publish only, and rounds over Flower's protocol."""

from __future__ import annotations

import csv
import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from fedser_client.data import prepare
from fedser_client.join import Asked, join, run
from fedser_client.patience import Patience
from fedser_client.settings import SiteSettings
from fedser_client.state import SiteFolder
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from fedser import bundle as bundles
from fedser.adapt import Schedule, make
from fedser.adapt.site import SiteModel
from fedser.errors import (
    EnrolmentError,
    NoAudioError,
    PolicyError,
    RollbackError,
    SignatureError,
    StateError,
    UsageError,
)
from fedser.evaluate.local import LocalSettings
from fedser.evaluate.local import run as adapt_alone
from fedser.evaluate.predict import answer_files
from fedser.evaluate.simulation_settings import SimulationSettings
from fedser.evaluate.source import SourceModel
from fedser.evaluate.world import build, build_sites
from fedser.federation import site_state
from fedser.federation.audit import AuditLog
from fedser.federation.layout import pack
from fedser.federation.local import assemble
from fedser.federation.policy import Policy
from fedser.federation.provider import Plan, Provider, travelling
from fedser.federation.site import Site
from fedser.federation.stages import apply_update, average

CPU = torch.device("cpu")


def joined(invitation: Path, data: Path, state: Path, *, dry_run: bool = False, **asked: Any) -> dict[str, Any]:
    own = Asked(data=data, device="cpu", **asked)
    return join(invitation, own, state, patience=Patience(2), command="join", dry_run=dry_run, once=False)


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [None, ("anger", "sadness")])
def test_a_site_prepares_what_a_simulation_prepares(
    signed: Any, recordings: Path, classes: tuple[str, ...] | None
) -> None:
    settings = SimulationSettings.model_validate(
        {
            "source": {"bundle": signed.path, "signer": signed.signer},
            "target": {"corpora": {"site": recordings}},
            "partition": {"by": "corpus"},
            "classes": classes,
        }
    )
    bundle = bundles.read(signed.path, signer=signed.signer)
    world = build(settings, CPU)
    source = SourceModel(bundle.classifier(), bundle.linear(), bundle.header.temperature)
    [simulated] = build_sites(settings, world, source)
    zeros = "0" * 64
    own = SiteSettings(
        study="s", site="a", address="a:1", ca="", order_key=zeros, bundle_key=zeros, data=recordings, classes=classes
    )
    data = prepare(bundle, own, CPU)
    assert torch.equal(data.local.x, simulated.data.x)
    assert data.local.speakers == simulated.data.speakers == 2
    masks = data.local.class_mask, simulated.data.class_mask
    assert masks == (None, None) or torch.equal(*masks)  # type: ignore[arg-type]
    for name, tensor in simulated.data.model.state_dict().items():
        assert torch.equal(data.local.model.state_dict()[name], tensor)


def test_classes_are_read_as_fedser_adapt_reads_them(signed: Any, settings: Any, recordings: Path) -> None:
    bundle = bundles.read(signed.path, signer=signed.signer)
    own = settings.model_copy(update={"data": recordings, "classes": ("Angry", "sad")})
    assert prepare(bundle, own, CPU).allowed == ("anger", "sadness")
    with pytest.raises(UsageError):
        prepare(bundle, own.model_copy(update={"classes": ("grumpiness",)}), CPU)


# --- dry run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_leave_and_sends_one_get(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    desk.rounds = 5
    told = joined(invitation, recordings, tmp_path / "state", dry_run=True)
    assert [(method, path) for method, path, _, _ in desk.seen] == [("GET", "/v1/fedser/bundle")]
    assert desk.seen[0][3] == b""
    bundle = bundles.read(desk.path, signer=json.loads(invitation.read_text())["bundle_key"])
    layout = travelling(bundle.classifier(), make("shot", {}), Policy())
    named = {tensor["name"]: tensor for tensor in told["leaves"]["tensors"]}
    assert set(named) >= {name for name, _ in layout}  # whatever an order of the study may ask for is told
    assert not set(named) & set(bundle.classifier().first_layer())
    for name, shape in layout:
        assert named[name]["bytes"] == 4 * torch.zeros(shape).numel()
    assert told["leaves"]["bytes_an_update"] == sum(tensor["bytes"] for tensor in named.values())
    assert told["leaves"]["utterances"] == 50  # 12, in coarse steps
    assert told["leaves"]["scalars"] == ["loss", "confidence", "diversity"]
    assert told["leaves"]["orders_at_most"] == Policy().rounds
    assert told["takes_part"]
    state = tmp_path / "state"
    assert (state / "policy.yaml").exists()
    assert not (state / "keys").exists()
    assert not (state / "audit.jsonl").exists()
    assert not (state / "model.safetensors").exists()


def test_a_dry_run_follows_the_policy(desk: Any, invitation: Path, recordings: Path, tmp_path: Path) -> None:
    desk.rounds = 5
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "leave: head\ncounts: false\nscalars: false\nclip: 3.5\nrounds: 9\nspeakers_min: 3\nencodings: [f16, i8]\n"
    )
    told = joined(invitation, recordings, tmp_path / "state", dry_run=True, policy=policy)
    leaves = told["leaves"]
    assert leaves["tensors"]
    assert all(tensor["name"].startswith("head.") for tensor in leaves["tensors"])
    assert (leaves["utterances"], leaves["scalars"], leaves["largest_norm"]) == (None, [], 3.5)
    assert leaves["orders_at_most"] == 9
    for tensor in leaves["tensors"]:
        assert tensor["bytes"] == 2 * torch.zeros(tensor["shape"]).numel()  # the widest format that may leave
    assert not told["takes_part"]
    assert not (tmp_path / "state" / "policy.yaml").exists()
    assert SiteFolder.open(tmp_path / "state").settings().policy == policy.resolve()


def test_a_dry_run_of_publish_only_leaves_nothing(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    leaves = joined(invitation, recordings, tmp_path / "state", dry_run=True)["leaves"]
    assert (leaves["tensors"], leaves["at_enrolment"], leaves["orders_at_most"]) == ([], [], 0)


# --- publish only ----------------------------------------------------------------------------------------------------


def test_publish_only_is_one_get_and_then_fedser_adapt(
    desk: Any, invitation: Path, recordings: Path, signed: Any, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    made = joined(invitation, recordings, state, method="bn", classes=("anger", "sadness"))
    assert [(method, path) for method, path, _, _ in desk.seen] == [("GET", "/v1/fedser/bundle")]
    assert made["kind"] == "alone"
    assert not (state / "keys").exists()
    own = LocalSettings(
        data=recordings,
        bundle=signed.path,
        signer=signed.signer,
        method="bn",
        classes=("anger", "sadness"),
        device="cpu",
    )
    adapt_alone(own, tmp_path / "adapted", command="adapt")
    assert (state / "predictions.csv").read_text() == (tmp_path / "adapted" / "predictions.csv").read_text()
    assert "What left this site" not in (state / "report.html").read_text()


def test_the_policy_bounds_the_method_without_rounds_too(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("methods: [bn, shot]\n")
    state = tmp_path / "state"
    assert joined(invitation, recordings, state, policy=policy)["guard"]["candidates"] == ["source", "bn", "shot"]
    with pytest.raises(PolicyError, match="ecan"):
        joined(invitation, recordings, state, policy=policy, method="ecan")


# --- refusals --------------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused_before_anything_is_sent(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    with pytest.raises(NoAudioError):
        joined(invitation, tmp_path / "nowhere", tmp_path / "state")
    values = json.loads(invitation.read_text())
    late = tmp_path / "late.invite"
    late.write_text(json.dumps(values | {"expires": 1}))
    with pytest.raises(EnrolmentError, match="expired"):
        joined(late, recordings, tmp_path / "state")
    assert not (tmp_path / "state").exists()
    assert desk.seen == []


def test_a_folder_serves_one_site_in_one_study(desk: Any, invitation: Path, recordings: Path, tmp_path: Path) -> None:
    desk.rounds = 3
    state = tmp_path / "state"
    joined(invitation, recordings, state, dry_run=True)
    other = tmp_path / "other.invite"
    other.write_text(json.dumps(json.loads(invitation.read_text()) | {"site": "site-2"}))
    with pytest.raises(StateError, match="site-1"):
        joined(other, recordings, state, dry_run=True)


def test_a_new_invitation_before_enrolment_replaces_the_old_one(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path, order_key: Any
) -> None:
    desk.rounds = 3
    state = tmp_path / "state"
    joined(invitation, recordings, state, dry_run=True)
    again = tmp_path / "again.invite"
    again.write_text(json.dumps(json.loads(invitation.read_text()) | {"token": "B" * 22}))
    joined(again, recordings, state, dry_run=True)
    assert SiteFolder.open(state).settings().token == "B" * 22


def test_an_older_bundle_and_a_wrong_signer_stop_the_node(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path, order_key: Any
) -> None:
    state = tmp_path / "state"
    joined(invitation, recordings, state, method="bn")
    folder = SiteFolder.open(state)
    folder.remember(folder.settings().model_copy(update={"bundle_version": 99}))
    with pytest.raises(RollbackError):
        run(state, patience=Patience(2), command="run", once=False)
    desk.signature = order_key.sign(desk.path.read_bytes()).hex()
    with pytest.raises(SignatureError):
        joined(invitation, recordings, tmp_path / "fresh")


def test_a_method_of_ones_own_does_not_fit_a_study_with_rounds(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    desk.rounds = 3
    with pytest.raises(UsageError, match="rounds"):
        joined(invitation, recordings, tmp_path / "state", method="shot")


def test_a_site_without_its_audit_log_or_its_state_does_not_go_on(
    desk: Any, invitation: Path, recordings: Path, tmp_path: Path
) -> None:
    desk.rounds = 3
    state = tmp_path / "state"
    joined(invitation, recordings, state, dry_run=True)
    folder = SiteFolder.open(state)
    folder.remember(folder.settings().model_copy(update={"token": None}))
    with pytest.raises(StateError, match="audit log"):
        run(state, patience=Patience(2), command="run", once=False)
    log = AuditLog(folder.file("audit.jsonl"))
    log.append({"event": "enrolment"})
    log.append({"event": "update", "round": 1})
    with pytest.raises(StateError, match="state is gone"):  # an old order could be carried out once more
        run(state, patience=Patience(2), command="run", once=False)


# --- rounds over Flower's protocol -----------------------------------------------------------------------------------


@dataclass
class Study:
    """A provider with one site: its own routes, Flower's fleet routes, and rounds in a thread."""

    desk: Any
    address: str
    room: Any
    order_key: Any
    signed: Any
    reply_key: str = ""
    thread: threading.Thread | None = None
    refusals: list[Any] = field(default_factory=list)
    problem: str = ""
    records: list[Any] = field(default_factory=list)
    enrolled: threading.Event = field(default_factory=threading.Event)

    def bundle(self) -> bundles.Bundle:
        return bundles.read(self.signed.path, signer=self.signed.signer)

    def plan(self, public: str) -> Plan:
        return Plan(
            study="study",
            sites={"site-1": public},
            method="ecan",
            options={},
            layout=travelling(self.bundle().classifier(), make("ecan", {}), Policy()),
            schedule=Schedule(steps=8, batch_size=16),
            rounds=3,
            personal_steps=2,
            quorum=0,
        )

    def run(self, transport: Any, public: str) -> None:
        plan = self.plan(public)
        provider = Provider(plan, self.order_key, transport, (average(), apply_update()))
        start = pack(dict(self.bundle().classifier().named_parameters()), plan.layout)
        try:
            provider.run(start)
        except Exception as error:
            self.problem = repr(error)
            raise
        self.refusals = provider.refusals

    async def enrol(self, request: Request) -> Response:
        body = json.loads(await request.body())
        if not self.reply_key:
            self.reply_key = body["reply_key"]
            self.room.admit("site-1", body["node_key"].encode())
            self.thread = threading.Thread(target=self.run, args=(self.room, self.reply_key), daemon=True)
            self.thread.start()
        self.enrolled.set()
        return JSONResponse({"protocol": 1, "study": "study", "site": "site-1"})


@pytest.fixture
def study(desk: Any, running: Any, certificate: Any, order_key: Any, signed: Any, tmp_path: Path) -> Iterator[Study]:
    from fedser.federation.flower import environment

    environment.prepare(tmp_path / "flower")
    from fedser.federation.flower.mailroom import Mailroom
    from fedser.federation.flower.routes import PREFIX, Routes

    room = Mailroom(1 << 22, deadline=60)
    records: list[Any] = []
    fleet, own = Routes(room, hold=1.0, record=records.append), desk.app()

    async def both(scope: Any, receive: Any, send: Any) -> None:
        await (fleet if scope["path"].startswith(PREFIX) else own)(scope, receive, send)

    with running(both, *certificate) as address:
        made = Study(desk, address, room, order_key, signed, records=records)
        desk.rounds, desk.enrol = 3, made.enrol
        yield made
        room.close()


@pytest.fixture
def invited(study: Study, invitation: Path) -> Path:
    """The invitation, to the address where all routes are."""
    values = json.loads(invitation.read_text())
    invitation.write_text(json.dumps(values | {"address": study.address}))
    return invitation


@pytest.fixture
def expected(study: Study, recordings: Path, settings: Any) -> dict[str, torch.Tensor]:
    """The personal model of the same study in one process."""
    from fedser.bundle.keys import SigningKey
    from fedser.evaluate.federate import InProcess, _fresh_key

    key: SigningKey = _fresh_key()
    data = prepare(study.bundle(), settings.model_copy(update={"data": recordings}), CPU)
    site = Site("site-1", "study", data.local, Policy(), key, study.order_key.public_hex)
    study.run(InProcess({"site-1": site}), key.public_hex)
    return assemble(data.local, site.state.personal).state_dict()


@pytest.fixture
def personal(study: Study, recordings: Path, settings: Any) -> Callable[[Path], dict[str, torch.Tensor]]:
    """The personal model in a state folder, whether or not the guard then preferred the source."""
    data = prepare(study.bundle(), settings.model_copy(update={"data": recordings}), CPU)

    def read(state: Path) -> dict[str, torch.Tensor]:
        kept = site_state.load(state / "state.safetensors", SiteFolder.open(state).settings().study)
        assert kept is not None
        return assemble(data.local, kept.personal).state_dict()

    return read


def test_a_study_ends_as_the_simulation_and_its_folder_answers(
    study: Study,
    invited: Path,
    recordings: Path,
    personal: Callable[[Path], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    client: Callable[..., Any],
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    process = client("join", invited, "--data", recordings, "--state", state, "--device", "cpu", "--patience", "20")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "round 3 of 3: 12 utterances, 2 steps, " in err
    for name in ("model.safetensors", "predictions.csv", "report.html", "audit.jsonl"):
        assert str(state / name) in out
        assert (state / name).exists()
    assert all(torch.equal(value, expected[name]) for name, value in personal(state).items())
    # twelve utterances are too few for the guard: the site answers with the source model
    site, source = SiteModel.load(state / "model.safetensors"), study.bundle().classifier().state_dict()
    assert all(torch.equal(value, source[name]) for name, value in site.model.state_dict().items())
    assert (site.header.method, site.header.bundle) == ("source", "tiny")
    # the folder is a model for fedser predict, as the one of fedser adapt is
    given = answer_files([recordings], state, device="cpu")
    rows = list(csv.DictReader((state / "predictions.csv").read_text().splitlines()))
    assert [row["emotion"] for row in rows] == list(given.answer.emotions)
    report = (state / "report.html").read_text()
    assert "What left this site" in report
    assert "4 orders were answered" in report
    for path in (state, state / "keys"):
        assert path.stat().st_mode & 0o077 == 0
    secret = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077]
    assert {path.suffix for path in secret} <= {".html", ".svg", ".pub", ".csv", ".md"}
    assert "token" not in json.loads((state / "site.json").read_text()) or not SiteFolder.open(state).settings().token
    # a run after the end asks nobody for anything
    before = len(study.desk.seen)
    again = client("run", "--state", state, "--format", "json")
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads(out)["kind"] == "finished"
    assert len(study.desk.seen) == before
    # audit and status
    audit = client("audit", "--state", state, "--format", "json")
    told = json.loads(audit.communicate(timeout=60)[0])
    assert [record["event"] for record in told["records"]] == ["enrolment", *["update"] * 3, "finished"]
    assert told["orders"] == 4
    status = client("status", "--state", state, "--format", "json")
    told = json.loads(status.communicate(timeout=60)[0])
    assert (told["phase"], told["orders"], told["running"]) == ("finished", 4, None)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_site_takes_up_its_rounds(
    study: Study,
    invited: Path,
    recordings: Path,
    personal: Callable[[Path], dict[str, torch.Tensor]],
    expected: dict[str, torch.Tensor],
    client: Callable[..., Any],
    tmp_path: Path,
    sign: signal.Signals,
) -> None:
    state = tmp_path / "state"
    first = client("join", invited, "--data", recordings, "--state", state, "--device", "cpu")
    late = threading.Timer(40, first.kill)  # no test waits for ever
    late.start()
    told = next((line for line in first.stderr if line.startswith("round 1")), "nothing")
    first.send_signal(sign)
    first.communicate(timeout=60)
    late.cancel()
    assert told != "nothing", (study.problem, study.records)
    assert first.returncode == (143 if sign == signal.SIGTERM else -9)
    second = client("run", "--state", state)
    _, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert all(torch.equal(value, expected[name]) for name, value in personal(state).items())
    assert study.thread is not None
    study.thread.join(10)
    assert not study.refusals
    assert len(study.desk.asked("/v1/fedser/enrol")) == 1
