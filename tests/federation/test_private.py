"""A privacy unit inside the site, through the site itself: what leaves is made of noised sums and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedser.adapt import Schedule
from fedser.audio.dataset import SpeechData
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.audio.utterance import Utterance
from fedser.compute import generator
from fedser.errors import PrivacyError
from fedser.federation import wire
from fedser.federation.data import local_data
from fedser.federation.layout import layout_of
from fedser.federation.policy import Policy
from fedser.federation.private import adapt_privately
from fedser.federation.provider import Plan
from fedser.federation.schema import Code, PeerWork, Refusal, Update
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, SiteState, SiteWork
from fedser.models.pretrained import PretrainedEncoder
from fedser.privacy import group_steps
from fedser.privacy.ledger import Ledger, open_ledger
from fedser.privacy.settings import PrivacySettings
from tests.federation.conftest import ORDER_KEY, key, small_model

UTTERANCES, FEATURES = 24, 6
NONE = Schedule(steps=8, batch_size=16)


def private(unit: str = "speaker", **changes: Any) -> Policy:
    given = {"unit": unit, "epsilon": 90.0, "noise": 2.0, "groups": 8, "size": 4, "rate": 0.5, "trained": "affine"}
    return Policy(privacy=PrivacySettings(**{**given, **changes}))


def speech(rows: list[int] | None = None) -> SpeechData:
    rows = list(range(UTTERANCES)) if rows is None else rows
    raw = torch.randn(UTTERANCES, FEATURES, generator=generator("test speech")) + 0.5
    told = tuple(Utterance(Path(f"{row}.wav"), speaker=f"s{row // 4}") for row in rows)
    return SpeechData("site", told, raw[rows], FeatureSettings())


def published() -> SiteNormaliser:
    raw = torch.randn(50, FEATURES, generator=generator("test source"))
    return SiteNormaliser.fit(raw, [None] * 50, NormalisationSettings())


def data_for(unit: str, rows: list[int] | None = None) -> LocalData:
    rule = NormalisationSettings()
    return local_data(speech(rows), small_model(), None, rule, None, unit=unit, published=published())[0]  # type: ignore[arg-type]


def ledger_of(policy: Policy) -> Ledger:
    ledger = open_ledger(policy.privacy, "site-1", None)
    assert ledger is not None
    return ledger


def site_of(policy: Policy, data: LocalData, **options: Any) -> Site:
    options.setdefault("ledger", ledger_of(policy))
    return Site("site-1", "study", data, policy, key(1), ORDER_KEY.public_hex, **options)


def order_of(lab: Any, number: int = 1, method: str = "ecan", **changes: Any) -> bytes:
    plan: Plan = lab.plan({"site-1": None}, rounds=2, steps=8, method=method)
    flat = lab.start(plan)
    order = lab.provider({}, plan).order(number, "site-1", changes.pop("phase", "train"), flat)
    return wire.encode(replace(order, **changes), flat, lab.order_key)


def answer(lab: Any, site: Site, order: bytes) -> tuple[Update | Refusal, torch.Tensor]:
    update, flat = wire.decode_reply(site.answer(order), lab.key(1).public_hex)
    return update, flat


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
@pytest.mark.parametrize("method", ["ecan", "aad"])
def test_a_site_answers_with_noised_steps_and_pays_for_each(lab: Any, unit: str, method: str) -> None:
    policy = private(unit)
    ledger = ledger_of(policy)
    site = site_of(policy, data_for(unit), ledger=ledger)
    update, flat = answer(lab, site, order_of(lab, method=method))
    assert isinstance(update, Update)
    assert update.utterances is None
    assert update.scalars is None
    assert float(flat.norm()) > 0
    alone = ledger_of(policy)
    alone.charge(2.0, 0.5, 4, study="study", round=1, attempt=0, fingerprint="0" * 64)
    assert ledger.spent() == alone.spent() > 0


def test_only_chosen_parameters_that_travel_move_and_nothing_stays_behind(lab: Any) -> None:
    site = site_of(private(), data_for("speaker"))
    _, flat = answer(lab, site, order_of(lab))
    layout, place, moved = lab.plan({"site-1": None}).layout, 0, set()
    for name, shape in layout:
        size = int(np.prod(shape))
        moved |= {name} if bool(flat[place : place + size].any()) else set()
        place += size
    owners = [name for name, module in small_model().named_modules() if isinstance(module, torch.nn.BatchNorm1d)]
    assert moved == {name for name, _ in layout if name.rpartition(".")[0] in owners}
    assert site.state.own == {}


def test_what_the_site_learnt_before_does_not_go_into_what_leaves(lab: Any) -> None:
    """A first layer adapted without noise would carry the site's speech into every gradient."""
    order = wire.decode_order(order_of(lab), ORDER_KEY.public_hex, wire.Limits(elements=10_000))
    quiet = private(noise=1e-9, rate=1.0).privacy
    data = data_for("speaker")
    spoilt = {name: tensor + 5 for name, tensor in small_model().state_dict().items() if "num_batches" not in name}
    stage, key_bytes = adapt_privately(quiet), bytes(32)
    updates = []
    for own in ({}, spoilt):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(group_steps, "random_bytes", lambda _: key_bytes)
            updates.append(stage(SiteWork(order[0], order[1], data, SiteState("study", own=own))).update)
    torch.testing.assert_close(updates[0], updates[1], rtol=0, atol=1e-6)


def test_an_order_to_finish_trains_without_noise_and_costs_nothing(lab: Any) -> None:
    policy = private()
    ledger = ledger_of(policy)
    site = site_of(policy, data_for("speaker"), ledger=ledger)
    update, flat = answer(lab, site, order_of(lab, phase="finish"))
    assert isinstance(update, Update)
    assert len(flat) == 0
    assert site.personal() is not None
    assert ledger.spent() == 0


def test_without_steps_of_its_own_the_last_model_keeps_the_published_statistics(lab: Any) -> None:
    site = site_of(private(), data_for("speaker"))
    order, flat = wire.decode_order(order_of(lab, phase="finish"), ORDER_KEY.public_hex, wire.Limits(elements=10_000))
    work = replace(order.work, steps=0, start=order.work.total)
    answer(lab, site, wire.encode(replace(order, work=work), flat, lab.order_key))
    personal = site.personal()
    assert personal is not None
    for name, buffer in small_model().named_buffers():
        assert torch.equal(personal.get_buffer(name), buffer)


def test_a_method_that_cannot_be_stated_inside_a_group_is_refused_before_anything_is_paid(lab: Any) -> None:
    policy = private()
    ledger = ledger_of(policy)
    site = site_of(policy, data_for("speaker"), ledger=ledger)
    refusal, _ = answer(lab, site, order_of(lab, method="shot"))
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.PRIVATE
    peer = PeerWork(weight=1.0, penalty=1.0, steps=5, balance=0.5)
    refusal, _ = answer(lab, site, order_of(lab, peer=peer))
    assert isinstance(refusal, Refusal)
    assert ledger.spent() == 0


def test_data_normalised_by_the_whole_site_are_refused() -> None:
    ordinary = data_for("none")
    with pytest.raises(PrivacyError):
        site_of(private(), ordinary)
    with pytest.raises(PrivacyError):  # speakers' own statistics are too much under the utterance unit
        site_of(private("utterance"), data_for("speaker"))
    nobody = replace(data_for("speaker"), units=(None,) * UTTERANCES)
    with pytest.raises(PrivacyError):
        site_of(private(), nobody)
    with pytest.raises(PrivacyError):
        local_data(speech(), small_model(), None, NormalisationSettings(), None, unit="speaker")


def test_a_pretrained_encoder_that_is_trained_is_refused() -> None:
    data = data_for("speaker")
    encoder = PretrainedEncoder.__new__(PretrainedEncoder)
    torch.nn.Module.__init__(encoder)
    data.model.encoder = encoder
    with pytest.raises(PrivacyError) as caught:
        site_of(private(), data)
    assert "frozen" in caught.value.hint


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
def test_without_one_unit_every_other_row_stays_as_it_was(unit: str) -> None:
    gone = {8, 9, 10, 11} if unit == "speaker" else {9}
    kept = [row for row in range(UTTERANCES) if row not in gone]
    assert torch.equal(data_for(unit).x[kept], data_for(unit, kept).x)
    ordinary = [data_for("none").x[kept], data_for("none", kept).x]  # the case that must fail
    assert float((ordinary[0] - ordinary[1]).abs().max()) > 1e-3


def test_the_model_that_is_looked_at_keeps_the_published_statistics(lab: Any) -> None:
    network = small_model()
    layout = layout_of(network, set(network.adaptable()))
    received = {name: network.get_parameter(name).detach() for name, _ in layout}
    seen = site_of(private(), data_for("speaker")).model(received)
    for name, buffer in network.named_buffers():
        assert torch.equal(seen.get_buffer(name), buffer)
