"""Withdrawal: a site that left answers nothing, a speaker who left is in nothing that is made from then on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fedser_client import keys, leave, presence
from fedser_client.cli import app
from fedser_client.data import SiteData, prepare
from fedser_client.join import run
from fedser_client.patience import Patience
from fedser_client.speakers import Marks, Withdrawn
from fedser_client.state import SiteFolder
from fedser_client.withdrawal import complete, rebuilt
from starlette.responses import JSONResponse, Response
from torch import Tensor
from typer.testing import CliRunner

from fedser import bundle as bundles
from fedser.adapt import Schedule, adapt, make
from fedser.audio import cache, features
from fedser.bundle import Bundle
from fedser.bundle.keys import SigningKey
from fedser.errors import NetworkError, NoAudioError, StateError, UsageError
from fedser.evaluate.federate import InProcess
from fedser.federation import site_state
from fedser.federation.audit import AuditLog, read
from fedser.federation.layout import pack, unpack
from fedser.federation.local import adapt_locally
from fedser.federation.policy import Policy
from fedser.federation.provider import Flight, Plan, Provider, travelling
from fedser.federation.site import Site
from fedser.federation.stages import ServerState, SiteState, SiteWork, apply_update, average

CPU = torch.device("cpu")
PATIENT = Patience(1)


@pytest.fixture(scope="module")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of 4 speakers, 8 of each."""
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("voices") / "recordings"
    emotions = ("anger", "neutral", "sadness")
    plan = CorpusPlan("site", speakers=4, utterances=32, emotions=emotions, seconds=(0.6, 0.8), first=70)
    write_corpus(folder, plan, seed=8)
    return folder


@dataclass
class World:
    """A site's folder, and a provider in the same process, one order at a time."""

    folder: SiteFolder
    settings: Any
    bundle: Bundle
    order_key: SigningKey

    def __post_init__(self) -> None:
        self.key = keys.reply_key(self.folder)
        self.layout = travelling(self.bundle.classifier(), make("aad", {}), Policy())
        self.tensors = pack(dict(self.bundle.classifier().named_parameters()), self.layout)
        self.log = AuditLog(self.folder.file("audit.jsonl"))
        self.log.append({"time": 1, "event": "enrolment", "bytes": 700})

    def data(self) -> SiteData:
        withdrawn, marks = complete(self.folder, self.settings, self.bundle), Marks(self.folder)
        return prepare(self.bundle, self.settings, CPU, lambda each: withdrawn.excludes(marks, each))

    def plan(self) -> Plan:
        schedule = Schedule(steps=8, batch_size=8)
        sites = {"site-1": self.key.public_hex}
        return Plan("study", sites, "aad", {}, self.layout, schedule, rounds=3, personal_steps=2, quorum=1)

    def site(self) -> Site:
        """The site as the node builds it."""
        data, path, marks = self.data(), self.folder.file("state.safetensors"), Marks(self.folder)
        here = {marks.of(each) for each in data.speech.speakers if each is not None}

        def attend(work: SiteWork) -> SiteWork:
            presence.note(self.folder, here, work)
            self.folder.tell(order={"method": work.order.method, "options": {}, "seed": work.order.seed, "steps": 2})
            return work

        return Site(
            *("site-1", "study", data.local, Policy(batch_min=2), self.key, self.order_key.public_hex),
            audit=AuditLog(self.folder.file("audit.jsonl")),
            state=site_state.load(path, "study"),
            keep=lambda state: site_state.save(path, state),
            stages=(attend, adapt_locally),
        )

    def round(self, number: int, attempt: int = 0) -> None:
        """One exchange, by a site that starts anew for it; round 4 is the order to finish."""
        transport = InProcess({"site-1": self.site()})
        flight = Flight(attempt, int(time.time()) + 600)
        provider = Provider(
            self.plan(), self.order_key, transport, (average(), apply_update()), flight=lambda _: flight
        )
        if number == 4:
            assert provider.finish(self.tensors) == ["site-1"]
            self.settings = self.folder.remember(self.settings.model_copy(update={"finished": True}))
        else:
            self.tensors, _ = provider.round(number, self.tensors, ServerState())

    def state(self) -> SiteState:
        found = site_state.load(self.folder.file("state.safetensors"), "study")
        assert found is not None
        return found

    def speakers(self) -> list[str]:
        return sorted({each for each in self.data().speech.speakers if each})


@pytest.fixture
def world(folder: SiteFolder, settings: Any, signed: Any, order_key: SigningKey, voices: Path) -> World:
    for suffix in ("", ".sig"):
        shutil.copy(f"{signed.path}{suffix}", f"{folder.file('bundle.safetensors')}{suffix}")
    joined = settings.model_copy(update={"data": voices, "token": None, "rounds": 3, "device": "cpu"})
    return World(folder, folder.remember(joined), bundles.read(signed.path, signer=signed.signer), order_key)


def drop(world: World, speaker: str) -> dict[str, Any]:
    return leave.drop(world.folder.path, speaker, patience=PATIENT, command="leave")


# --- a speaker -------------------------------------------------------------------------------------------------------


def test_after_a_finished_study_the_personal_model_rests_on_nothing_of_the_speaker(world: World) -> None:
    for number in (1, 2, 3, 4):
        world.round(number)
    gone, before = world.speakers()[0], world.state().personal
    told = drop(world, gone)
    assert (told["first_round"], told["rounds"], told["rebuilt_from"], told["rebuilt"]) == (1, 3, 1, True)
    data = world.data()
    assert gone not in data.speech.speakers
    assert len(data.speech) == 24
    # by hand: the signed bundle, the method's own schedule, the others' utterances
    order = world.folder.status()["order"]
    expected = adapt(world.bundle.classifier(), data.local.x, make("aad", {}), seed=order["seed"], linear=None).model
    after = world.state().personal
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.state_dict().items())
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items())
    results = json.loads(world.folder.file("results.json").read_text())
    assert results["utterances"] == 24
    assert results["withdrawal"]["speakers"] == results["withdrawal"]["took_part"] == 1
    report = world.folder.file("report.html").read_text()
    assert "1 speaker has withdrawn" in report
    assert "updates that left before stay" in report
    rows = world.folder.file("predictions.csv").read_text()
    assert f",{gone}," not in rows


def test_rounds_after_the_withdrawal_are_without_the_speaker(world: World) -> None:
    world.round(1)
    own = dict(world.state().own)
    told = drop(world, world.speakers()[0])
    assert not told["rebuilt"]
    state, clean = world.state(), world.bundle.classifier().state_dict()
    assert all(torch.equal(tensor, clean[name]) for name, tensor in state.own.items())
    assert any(not torch.equal(tensor, clean[name]) for name, tensor in own.items())
    assert (state.reply, state.round, state.rounds) == (b"", 1, 1)
    world.round(2)
    known = presence.Presence.load(world.folder)
    assert [len(known.sets[known.rounds[number]]) for number in (1, 2)] == [4, 3]


def test_the_last_model_of_a_study_that_goes_on_is_made_without_the_speaker_too(world: World, signed: Any) -> None:
    world.round(1)
    drop(world, world.speakers()[0])
    for number in (2, 3, 4):
        world.round(number)
    through_rounds = world.state().personal
    run(world.folder.path, patience=PATIENT, command="run", once=False)
    data, order = world.data(), world.folder.status()["order"]
    expected = adapt(world.bundle.classifier(), data.local.x, make("aad", {}), seed=order["seed"], linear=None).model
    after = world.state().personal
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.state_dict().items())
    assert any(not torch.equal(after[name], tensor) for name, tensor in through_rounds.items())


def test_a_speaker_who_came_later_goes_back_to_the_joint_model_before_them(world: World, tmp_path: Path) -> None:
    late = world.speakers()[0]
    few = tmp_path / "few"
    shutil.copytree(world.settings.data, few)
    manifest = few / "manifest.csv"
    whole = manifest.read_text()
    manifest.write_text("".join(line for line in whole.splitlines(True) if f",{late}," not in line))
    world.settings = world.folder.remember(world.settings.model_copy(update={"data": few}))
    assert late not in world.speakers()
    world.round(1)
    world.round(2)
    joint, own = world.tensors, world.state().own
    manifest.write_text(whole)
    assert late in world.speakers()
    world.round(3)
    world.round(4)
    told = drop(world, late)
    assert (told["first_round"], told["rounds"], told["rebuilt_from"]) == (3, 1, 3)
    number, kept = presence.start(world.folder, 3)
    model: dict[str, Tensor] = {**world.bundle.classifier().state_dict(), **own, **unpack(joint, world.layout)}
    assert number == 3
    begun = {**world.bundle.classifier().state_dict(), **kept}
    assert all(torch.equal(begun[name], tensor) for name, tensor in model.items())
    start = world.bundle.classifier()
    start.load_state_dict(model)
    data, order = world.data(), world.folder.status()["order"]
    expected = adapt(start, data.local.x, make("aad", {}), seed=order["seed"], linear=None).model
    after = world.state().personal
    assert all(torch.equal(after[name], tensor) for name, tensor in expected.state_dict().items())


def test_no_file_of_the_state_but_predictions_names_a_speaker(world: World) -> None:
    names = world.speakers()
    world.round(1)
    drop(world, names[0])
    world.round(2)
    for path in world.folder.path.rglob("*"):
        if path.is_file():
            held = path.read_bytes()
            assert not any(name.encode() in held for name in names), path
    event = next(record for record in read(world.folder.file("audit.jsonl")) if record["event"] == "withdrawal")
    assert set(event) == {"time", "event", "of", "before", "hash"}


def test_the_name_is_no_part_of_the_command_that_the_report_shows(world: World) -> None:
    from fedser_client.commands.options import without

    gone = world.speakers()[0]
    assert gone not in without(f"fedser-client leave --speaker {gone} --state s", gone)
    assert gone not in without(f"fedser-client leave --speaker={gone}", gone)


def test_cached_features_of_the_speaker_are_deleted(world: World) -> None:
    from fedser.audio import dataset

    speech, gone = world.data().speech, world.speakers()[0]
    settings = world.bundle.header.features
    store = cache.FeatureCache(features.version(settings), features.shape(settings))
    assert speech.inspection is not None
    keys_of = {
        cache.key(digest, each): each.speaker
        for digest, each in zip(speech.inspection.digests, speech.utterances, strict=True)
    }
    assert drop(world, gone)["features_deleted"] == 8
    assert all((store.get(name) is None) == (speaker == gone) for name, speaker in keys_of.items())
    again = dataset.load(world.settings.data, settings, device=CPU)
    assert again.extracted == 8


def test_a_withdrawal_twice_a_speaker_nobody_knows_and_nobody_left(world: World) -> None:
    world.round(1)
    names = world.speakers()
    first = drop(world, names[0])
    assert drop(world, names[0]) == {**first, "features_deleted": 0}
    with pytest.raises(UsageError, match="Nobody called"):
        drop(world, "nobody-of-this-name")
    for name in names[1:]:
        drop(world, name)
    with pytest.raises(NoAudioError, match="is left"):
        world.data()


def test_a_crash_between_the_words_and_the_deed_is_made_good_at_the_next_start(world: World) -> None:
    world.round(1)
    leave._record(world.folder, world.settings, world.speakers()[0])
    assert not next(iter(Withdrawn.load(world.folder).speakers.values())).done
    assert world.state().reply
    assert len(world.data().speech) == 24  # as the node does when it starts
    assert not world.state().reply
    assert next(iter(Withdrawn.load(world.folder).speakers.values())).done


def test_at_most_so_many_models_are_kept_and_a_later_speaker_falls_back(world: World) -> None:
    site, provider = world.site(), Provider(world.plan(), world.order_key, InProcess({}), ())
    for number in range(1, presence.KEPT + 3):
        order = replace(provider.order(1, "site-1", "train", world.tensors), round=number)
        work = SiteWork(order, world.tensors + number, site.data, site.state)
        presence.note(world.folder, [f"{each:032x}" for each in range(number)], work)
    kept = sorted(world.folder.file("starts").iterdir())
    assert len(kept) == presence.KEPT
    number, tensors = presence.start(world.folder, presence.KEPT + 2)
    assert number == presence.KEPT
    name = world.layout[-1][0]
    assert torch.equal(tensors[name], unpack(world.tensors + number, world.layout)[name])


def test_with_too_few_left_the_personal_model_is_the_one_from_before(world: World) -> None:
    data = world.data()
    few = replace(data, local=replace(data.local, x=data.local.x[:1]))
    made = rebuilt(world.folder, few, {"method": "aad", "options": {}, "seed": 0}, 1)
    clean = world.bundle.classifier().state_dict()
    assert all(torch.equal(tensor, clean[name]) for name, tensor in made.state_dict().items())


def test_a_site_that_adapted_by_itself_does_so_again_without_the_speaker_and_without_a_network(
    world: World, desk: Any
) -> None:
    alone = world.settings.model_copy(update={"rounds": 0, "method": "bn"})
    world.settings = world.folder.remember(alone)
    told = drop(world, world.speakers()[0])
    assert (told["first_round"], told["rebuilt"]) == (None, True)
    results = json.loads(world.folder.file("results.json").read_text())
    assert results["utterances"] == 24
    assert results["withdrawal"]["took_part"] == 0
    assert desk.seen == []


# --- the site --------------------------------------------------------------------------------------------------------


def test_a_site_leaves_its_provider_is_told_and_it_answers_nothing_any_more(world: World, desk: Any) -> None:
    world.round(1)
    told = leave.leave(world.folder.path, patience=PATIENT, command="leave")
    assert told["signed_off"]
    [(method, _, _, body)] = desk.asked("/v1/fedser/leave")
    assert method == "POST"
    from fedser.federation.withdrawal import LeaveRequest, check

    asked = LeaveRequest.model_validate_json(body)
    check(asked)
    assert (asked.site, asked.reply_key) == ("site-1", world.key.public_hex)
    with pytest.raises(StateError, match="left the study"):
        run(world.folder.path, patience=PATIENT, command="run", once=False)
    events = [record["event"] for record in read(world.folder.file("audit.jsonl"))]
    assert events == ["enrolment", "update", "leave"]
    report = world.folder.file("report.html").read_text()
    assert "This site left the study" in report
    assert "updates that left before stay" in report
    again = leave.leave(world.folder.path, patience=PATIENT, command="leave")
    assert (again["left"], len(desk.asked("/v1/fedser/leave"))) == (told["left"], 1)


def test_a_provider_that_cannot_be_told_changes_nothing_of_the_leaving(world: World, desk: Any) -> None:
    async def ill(_: Any) -> Response:
        return JSONResponse({}, 400)

    desk.leave = ill
    with pytest.raises(NetworkError, match="has left, but"):
        leave.leave(world.folder.path, patience=PATIENT, command="leave")
    with pytest.raises(StateError, match="left the study"):
        run(world.folder.path, patience=PATIENT, command="run", once=False)
    assert not world.folder.settings().signed_off
    desk.leave = None
    assert leave.leave(world.folder.path, patience=PATIENT, command="leave")["signed_off"]


def test_a_report_that_is_there_is_kept_and_says_that_the_site_left(world: World) -> None:
    for number in (1, 2, 3, 4):
        world.round(number)
    run(world.folder.path, patience=PATIENT, command="run", once=False)
    before = json.loads(world.folder.file("results.json").read_text())
    leave.leave(world.folder.path, patience=PATIENT, command="leave")
    after = json.loads(world.folder.file("results.json").read_text())
    assert after["withdrawal"]["site_left"]
    assert {key: after[key] for key in ("method", "guard", "answers")} == {
        key: before[key] for key in ("method", "guard", "answers")
    }
    assert "This site left the study" in world.folder.file("report.html").read_text()


def test_a_running_node_is_stopped_first(world: World) -> None:
    code = (
        "import sys, time, pathlib; from fedser import lockfile\n"
        "with lockfile.held(pathlib.Path(sys.argv[1]), ''):\n    print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(world.folder.file("lock"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        told = leave.leave(world.folder.path, patience=PATIENT, command="leave")
        assert told["stopped"]
        assert process.wait(10) == -15


def test_the_command_says_what_cannot_be_undone(world: World) -> None:
    world.round(1)
    state = str(world.folder.path)
    shown = CliRunner().invoke(app, ["leave", "--state", state, "--speaker", world.speakers()[0]])
    assert shown.exit_code == 0, shown.exception
    assert "will be made at the end from the joint model that round 1 began with" in shown.stdout
    assert "stays spent" in shown.stdout
    shown = CliRunner().invoke(app, ["leave", "--state", state, "--format", "json"])
    assert json.loads(shown.stdout)["kind"] == "left"
    status = json.loads(CliRunner().invoke(app, ["status", "--state", state, "--format", "json"]).stdout)
    assert status["phase"] == "left"
    assert "left the study at" in CliRunner().invoke(app, ["status", "--state", state]).stdout
