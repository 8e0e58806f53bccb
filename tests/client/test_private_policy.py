"""The recommended private policy: it loads, three sites run a masked study under it, and its budget ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fedser_client import dryrun, keys, policies
from fedser_client.cli import app
from fedser_client.data import prepare
from fedser_client.loop import WatchedLog
from fedser_client.state import SiteFolder
from typer.testing import CliRunner

from fedser import bundle as bundles
from fedser.adapt import Schedule, make
from fedser.bundle import Bundle
from fedser.bundle.keys import SigningKey
from fedser.errors import QuorumError
from fedser.evaluate.federate import InProcess
from fedser.federation import secure_state, site_state
from fedser.federation.audit import read
from fedser.federation.layout import pack
from fedser.federation.plan import Plan, travelling
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.site import Site
from fedser.federation.stages import ServerState, apply_update, together
from fedser.privacy.settings import PrivacySettings

PRIVATE = Path(__file__).parents[2] / "configs" / "policy" / "private.yaml"
NAMES = ("site-1", "site-2", "site-3")


@pytest.fixture(scope="module")
def bundle(signed: Any) -> Bundle:
    return bundles.read(signed.path, signer=signed.signer)


class Clinic:
    """One site's folder, as the node works on it."""

    def __init__(self, folder: Path, name: str, settings: Any, bundle: Bundle, policy: Policy, order_key: SigningKey):
        self.folder = SiteFolder.make(folder / name)
        self.settings = self.folder.remember(settings.model_copy(update={"site": name, "policy": PRIVATE}))
        self.policy, self.key, self.bundle = policy, keys.reply_key(self.folder), bundle
        self.data = prepare(bundle, self.settings, torch.device("cpu"), unit=policy.privacy.unit)
        self.order_key = order_key

    def site(self) -> Site:
        path, secure = self.folder.file("state.safetensors"), self.folder.file("masking.json")
        return Site(
            *(self.settings.site, "study", self.data.local, self.policy, self.key, self.order_key.public_hex),
            audit=WatchedLog(self.folder.file("audit.jsonl")),
            state=site_state.load(path, "study"),
            keep=lambda state: site_state.save(path, state),
            secure=secure_state.load(secure, "study"),
            keep_secure=lambda state: secure_state.save(secure, state),
            ledger=policies.ledger(self.folder, self.settings, self.policy),
        )

    def events(self) -> list[dict[str, Any]]:
        return list(read(self.folder.file("audit.jsonl")))


def quick(policy: Policy) -> Policy:
    """The same among three sites, with noise that needs no search, and a budget for the steps of one round."""
    masking = policy.privacy.masking.model_copy(update={"honest": len(NAMES)})
    private = policy.privacy.model_copy(update={"noise": 1.3, "epsilon": 5.0, "rate": 0.25, "masking": masking})
    return policy.model_copy(update={"privacy": PrivacySettings.model_validate(private.model_dump())})


@pytest.fixture
def clinics(tmp_path: Path, settings: Any, recordings: Path, bundle: Bundle, order_key: SigningKey) -> list[Clinic]:
    own = settings.model_copy(update={"data": recordings, "token": None, "rounds": 2, "device": "cpu"})
    policy = quick(policies.read(PRIVATE))
    return [Clinic(tmp_path, name, own, bundle, policy, order_key) for name in NAMES]


def provider(clinics: list[Clinic], bundle: Bundle, order_key: SigningKey) -> tuple[Provider, torch.Tensor]:
    layout = travelling(bundle.classifier(), make("ecan", {}), Policy())
    plan = Plan(
        "study",
        {clinic.settings.site: clinic.key.public_hex for clinic in clinics},
        *("ecan", {}, layout, Schedule(steps=20, batch_size=16)),
        rounds=2,
        quorum=3,
        masking=MaskingTerms(),
    )
    transport = InProcess({clinic.settings.site: clinic.site() for clinic in clinics})
    start = pack(dict(bundle.classifier().named_parameters()), layout)
    return Provider(plan, order_key, transport, (together(), apply_update())), start


def test_it_loads_and_demands_a_unit_and_masks() -> None:
    policy = policies.read(PRIVATE)
    assert policy.privacy.on
    assert policy.privacy.masking.required
    assert policy.privacy.epsilon <= 8


def test_a_masked_study_runs_under_it_until_the_budget_is_spent_and_the_site_goes_on(
    clinics: list[Clinic], bundle: Bundle, order_key: SigningKey
) -> None:
    told, tensors = provider(clinics, bundle, order_key)
    after, state = told.round(1, tensors, ServerState())
    assert not torch.equal(after, tensors)
    site = clinics[0]
    budget = policies.ledger(site.folder, site.settings, site.policy)
    assert budget is not None
    assert 0 < budget.spent() <= 5
    with pytest.raises(QuorumError, match="0 updates"):
        told.round(2, after, state)
    assert [event.get("code") for event in site.events() if event["event"] == "refusal"] == ["BUDGET"]
    spent = budget.spent()
    assert told.finish(after) == list(NAMES)  # the last order costs nothing, and is answered without a tensor
    assert budget.spent() == spent
    known = site_state.load(site.folder.file("state.safetensors"), "study")
    assert known is not None
    assert known.personal
    update = next(event for event in site.events() if event["event"] == "update")
    assert "norm" not in update or update["norm"] is None
    assert update.get("utterances") is None


def test_status_tells_what_is_spent_and_left(clinics: list[Clinic], bundle: Bundle, order_key: SigningKey) -> None:
    told, tensors = provider(clinics, bundle, order_key)
    told.round(1, tensors, ServerState())
    site = clinics[0]
    path = site.folder.file("mine.yaml")
    path.write_text(json.dumps({"privacy": site.policy.privacy.model_dump(mode="json")}))
    site.folder.remember(site.settings.model_copy(update={"policy": path}))
    state = str(site.folder.path)
    shown = json.loads(CliRunner().invoke(app, ["status", "--state", state, "--format", "json"]).stdout)["privacy"]
    budget = policies.ledger(site.folder, site.settings, site.policy)
    assert budget is not None
    assert shown["spent"] == pytest.approx(budget.spent(), abs=1e-4)
    assert shown["left"] == pytest.approx(5 - budget.spent(), abs=1e-4)
    assert f"ε spent {shown['spent']:g} of 5" in CliRunner().invoke(app, ["status", "--state", state]).stdout
    site.folder.file("bundle.safetensors").write_bytes(b"")
    site.folder.tell(last={"event": "refusal", "code": "BUDGET", "time": 1})
    words = CliRunner().invoke(app, ["status", "--state", state]).stdout
    assert f"fedser adapt --bundle {site.folder.file('bundle.safetensors')} --signer {bundle.header.signer}" in words


def test_the_dry_run_tells_what_a_release_costs(clinics: list[Clinic], bundle: Bundle) -> None:
    site = clinics[0]
    ledger = policies.ledger(site.folder, site.settings, site.policy)
    told = dryrun.describe(bundle, site.data, site.policy, PRIVATE, site.settings, 2, ledger)
    assert told["privacy"]["noise"] == 1.3
    assert 0 < told["privacy"]["first"] < 5
    assert told["leaves"]["utterances"] is None
    assert told["leaves"]["scalars"] == []
    words = dryrun.text(told)
    assert "integers under a mask" in words
    assert f"one alone costs ε = {told['privacy']['first']:g}" in words
    assert "There is no differential privacy" not in words
    plain = dryrun.text(dryrun.describe(bundle, site.data, Policy(), PRIVATE, site.settings, 2))
    assert "There is no differential privacy" in plain
    assert "under a mask" not in plain


def test_recordings_prepared_for_no_unit_are_no_data_of_this_policy(clinics: list[Clinic], bundle: Bundle) -> None:
    site = clinics[0]
    plain = prepare(bundle, site.settings, torch.device("cpu"))
    assert plain.local.units is None
    assert site.data.local.units is not None
    from fedser.errors import PrivacyError

    site.data = replace(site.data, local=plain.local)
    with pytest.raises(PrivacyError):
        site.site()
