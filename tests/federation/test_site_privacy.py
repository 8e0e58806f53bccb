"""The site as unit of privacy at the gate: what leaves is noised, charged first, and tells nothing else of the data."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from fedser.errors import FedserError, LedgerError, OutputError, PrivacyError
from fedser.federation import wire
from fedser.federation.audit import AuditLog
from fedser.federation.layout import PEER, elements, layout_of, norm, pack, unpack
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Refusal, Update
from fedser.federation.site import Site
from fedser.federation.stages import SiteStage, SiteWork
from fedser.privacy import site_unit
from fedser.privacy.ledger import Ledger, open_ledger
from fedser.privacy.settings import PrivacySettings
from tests.federation import test_peer as peers
from tests.federation.test_firing import trapped, wide

NOISE, CLIP = 3.0, 0.5
CHANCE = 1e-10


def private(**changes: Any) -> Policy:
    given = {"unit": "site", "epsilon": 50.0, "clip": CLIP, "noise": NOISE, **changes}
    return Policy(privacy=PrivacySettings(**given))


def memory(policy: Policy) -> Ledger:
    ledger = open_ledger(policy.privacy, "site-1", None)
    assert ledger is not None
    return ledger


def site_of(lab: Any, policy: Policy, *stages: SiteStage, **options: Any) -> Site:
    options.setdefault("ledger", memory(policy))
    return lab.site(1, policy, **({"stages": stages} if stages else {}), **options)


def order_of(lab: Any, number: int = 1, **changes: Any) -> bytes:
    plan = lab.plan({"site-1": None}, rounds=20, steps=40)
    flat = changes.pop("flat", lab.start(plan))
    order = lab.provider({}, plan).order(number, "site-1", changes.pop("phase", "train"), flat)
    return wire.encode(replace(order, **changes), flat, lab.order_key)


def reply_of(lab: Any, site: Site, order: bytes) -> tuple[Update | Refusal, torch.Tensor]:
    reply = site.answer(order)
    return wire.decode_reply(reply, lab.key(1).public_hex)


def constant(value: float) -> SiteStage:
    """A stage in place of training: every value of the update is the same."""

    def stage(work: SiteWork) -> SiteWork:
        return replace(work, update=torch.full((elements(work.order.layout),), value))

    return stage


def noise_within(values: torch.Tensor, std: float) -> bool:
    """Whether values could be noise of ``std``: a χ² of their squares, two-sided."""
    statistic = float(values.double().square().sum()) / std**2
    return bool(chi2.isf(1 - CHANCE, len(values)) < statistic < chi2.isf(CHANCE, len(values)))


def test_what_leaves_is_the_clipped_update_plus_noise(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[np.ndarray] = []
    usual = site_unit.noised

    def noised(integers: np.ndarray, std: float) -> np.ndarray:
        added.append(usual(integers, std) - integers)
        return integers + added[-1]

    monkeypatch.setattr(site_unit, "noised", noised)
    update, payload = reply_of(lab, site_of(lab, private(), constant(10.0)), order_of(lab))
    assert isinstance(update, Update)
    size = len(payload)
    grid = site_unit.grid_of(CLIP, size)
    noise = torch.from_numpy(added[0] * grid)
    assert noise_within(noise, NOISE * site_unit.sensitivity(CLIP, grid, size))
    assert not noise_within(noise, 4 * NOISE * CLIP)
    assert torch.allclose(payload - noise, torch.full((size,), CLIP / math.sqrt(size)).double(), atol=grid)


def test_without_noise_the_same_look_notices(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_unit, "noised", lambda integers, std: integers)
    _, payload = reply_of(lab, site_of(lab, private(), constant(0.0)), order_of(lab))
    assert not noise_within(payload, NOISE * CLIP)


def test_no_count_no_scalar_leaves_whatever_the_policy_says(lab: Any) -> None:
    policy = private().model_copy(update={"counts": True, "scalars": True})
    update, _ = reply_of(lab, site_of(lab, policy), order_of(lab))
    assert isinstance(update, Update)
    assert update.utterances is None
    assert update.scalars is None
    open_update, _ = reply_of(lab, lab.site(1), order_of(lab))
    assert isinstance(open_update, Update)
    assert open_update.utterances is not None  # the control: without a unit they do


def fails(work: SiteWork) -> SiteWork:
    raise FedserError("no", "no")


@pytest.mark.parametrize(
    "stage", [fails, constant(math.nan), constant(math.inf), constant(0.0)], ids=["fails", "NaN", "inf", "zeros"]
)
def test_a_site_answers_whatever_its_data_did(lab: Any, stage: SiteStage) -> None:
    """Noise of the same width, the same form, no code."""
    update, payload = reply_of(lab, site_of(lab, private(), stage), order_of(lab))
    assert isinstance(update, Update)
    assert noise_within(payload, NOISE * CLIP * 1.006)


@pytest.mark.parametrize("changes", [{"utterances_min": 1000}, {"speakers_min": 50}])
def test_too_little_data_is_no_refusal(lab: Any, changes: dict[str, int]) -> None:
    audit, policy = AuditLog(), private().model_copy(update=changes)
    site = site_of(lab, policy, constant(math.nan), audit=audit)
    update, payload = reply_of(lab, site, order_of(lab))
    assert isinstance(update, Update)
    assert noise_within(payload, NOISE * CLIP * 1.006)
    assert audit.records[-1]["withheld"] == "TOO_LITTLE_DATA"  # the owner is told, the provider is not
    plain, _ = reply_of(lab, lab.site(1, Policy(**changes)), order_of(lab))
    assert isinstance(plain, Refusal)


def test_weights_that_single_out_utterances_learn_nothing_and_not_even_that(lab: Any) -> None:
    data, trained = wide(), []
    model = data.model
    plan = replace(
        lab.plan({"site-1": None}), layout=layout_of(model, set(model.adaptable()) - set(model.first_layer()))
    )
    flat = pack(trapped(data, 1, "bins"), plan.layout)
    sent = wire.encode(lab.provider({}, plan).order(1, "site-1", "train", flat), flat, lab.order_key)
    refused, _ = reply_of(lab, lab.site(1, data=data), sent)
    assert isinstance(refused, Refusal)
    assert refused.code == Code.TRAP
    audit = AuditLog()

    def stage(work: SiteWork) -> SiteWork:
        trained.append(work)
        return constant(1.0)(work)

    update, payload = reply_of(lab, site_of(lab, private(), stage, data=data, audit=audit), sent)
    assert isinstance(update, Update)
    assert audit.records[-1]["withheld"] == "TRAP"
    assert trained == []  # no utterance was computed on with these weights but by the look at them
    assert noise_within(payload, NOISE * CLIP * 1.01)


def test_charged_before_it_is_computed_recorded_or_sent(lab: Any) -> None:
    policy = private()
    ledger, seen = memory(policy), []

    def look(work: SiteWork) -> SiteWork:
        seen.append(len(ledger))
        return constant(0.0)(work)

    audit = AuditLog()
    reply_of(lab, site_of(lab, policy, look, ledger=ledger, audit=audit), order_of(lab))
    assert seen == [1]
    assert audit.records[-1]["privacy"] == {"unit": "site", "clip": CLIP, "noise": NOISE, "charges": 1}
    assert ledger.spent() > 0


def test_a_repeat_gets_the_stored_bytes_and_charges_nothing(lab: Any) -> None:
    policy = private()
    ledger = memory(policy)
    site, order = site_of(lab, policy, ledger=ledger), order_of(lab)
    assert site.answer(order) == site.answer(order)
    assert len(ledger) == 1


def test_an_order_computed_anew_is_charged_anew(lab: Any) -> None:
    """A state that was put back, or a second state folder: other noise leaves, and both releases count."""
    policy = private()
    ledger, order = memory(policy), order_of(lab)
    first, second = (site_of(lab, policy, ledger=ledger).answer(order) for _ in range(2))
    assert first != second
    assert len(ledger) == 2


def test_a_spent_budget_is_a_code_and_the_site_stays_useful(lab: Any) -> None:
    policy = private(epsilon=1.0, noise=5.0)  # room for a single release
    site = site_of(lab, policy)
    answers = [reply_of(lab, site, order_of(lab, number))[0] for number in (1, 2, 3)]
    assert isinstance(answers[0], Update)
    assert [a.code for a in answers[1:] if isinstance(a, Refusal)] == [Code.BUDGET, Code.BUDGET]
    finished, payload = reply_of(lab, site, order_of(lab, 4, phase="finish"))
    assert isinstance(finished, Update)  # the personal model is made: it stays here, and costs nothing
    assert len(payload) == 0
    assert site.personal() is not None


def test_the_last_order_answers_even_where_training_fails(lab: Any) -> None:
    policy = private()
    site = site_of(lab, policy, fails)
    finished, _ = reply_of(lab, site, order_of(lab, phase="finish"))
    assert isinstance(finished, Update)
    assert site.personal() is not None


def test_the_budget_lasts_for_the_releases_it_was_made_for(lab: Any) -> None:
    policy = private(epsilon=2.0, noise=None, releases=3)
    ledger = memory(policy)
    site = site_of(lab, policy, constant(0.0), ledger=ledger)
    answers = [reply_of(lab, site, order_of(lab, number))[0] for number in range(1, 6)]
    assert [isinstance(answer, Update) for answer in answers] == [True, True, True, False, False]
    assert 1.9 < ledger.spent() <= 2.0


@pytest.mark.parametrize("encoding", ["f16", "i8"])
def test_fewer_bytes_are_made_of_noised_values(lab: Any, encoding: str) -> None:
    update, payload = reply_of(lab, site_of(lab, private(), constant(0.0)), order_of(lab, encoding=encoding))
    assert isinstance(update, Update)
    assert noise_within(payload, NOISE * CLIP * 1.006)
    assert norm(payload) > Policy().clip / 20  # noise is not cut to a norm


def test_a_unit_without_its_ledger_is_no_site(lab: Any, tmp_path: Path) -> None:
    policy = private()
    with pytest.raises(PrivacyError, match="no ledger"):
        lab.site(1, policy)
    other = Ledger(None, "site-1", "speaker", 1.0, 1e-5)
    with pytest.raises(PrivacyError, match="no ledger"):
        lab.site(1, policy, ledger=other)


def test_nothing_leaves_where_the_ledger_cannot_be_written_or_read(lab: Any, tmp_path: Path) -> None:
    policy, audit, kept = private(), AuditLog(), []
    path = tmp_path / "ledger.jsonl"
    ledger = open_ledger(policy.privacy, "site-1", path)
    site = site_of(lab, policy, ledger=ledger, audit=audit, keep=kept.append)
    site.answer(order_of(lab, 1))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(LedgerError):
        site.answer(order_of(lab, 2))
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError):
        site.answer(order_of(lab, 2))
    assert len(audit.records) == len(kept) == 1


def test_the_peer_is_part_of_the_clipped_vector(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real training with a peer, the noise taken away to look: all of it together is as long as the clip."""
    monkeypatch.setattr(site_unit, "noised", lambda integers, std: integers)
    plan, clip = peers.the_plan(), 1e-3
    policy = private(clip=clip).model_copy(update={"peer": True})
    site = lab.site(1, policy, data=peers.data(1), ledger=memory(policy))
    flat = peers.start(plan)
    order = wire.encode(lab.provider({}, plan).order(1, "site-1", "train", flat), flat, lab.order_key)
    update, payload = reply_of(lab, site, order)
    assert isinstance(update, Update)
    moved = unpack(payload, plan.layout)
    assert float(moved[PEER].norm()) > 0
    assert float(payload.norm() - moved[PEER].norm()) > 0
    assert norm(payload) == pytest.approx(clip, rel=0.02)


def test_a_clip_above_the_policys_own_is_refused() -> None:
    with pytest.raises(ValueError, match="clip"):
        Policy(clip=1.0, privacy=PrivacySettings(unit="site", clip=2.0))


def test_a_relative_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absolute"):
        PrivacySettings(unit="site", ledger=Path("ledger.jsonl"))
    assert PrivacySettings(unit="site", ledger=tmp_path / "ledger.jsonl").ledger is not None


def test_delta_against_the_number_of_units() -> None:
    with pytest.raises(ValueError, match="delta"):
        PrivacySettings(unit="site", units=20_000, delta=1e-5)
    with pytest.raises(ValueError, match="less than or equal"):
        PrivacySettings(unit="site", delta=1e-4)
    assert PrivacySettings(unit="site", units=20_000, delta=5e-6).delta == 5e-6
