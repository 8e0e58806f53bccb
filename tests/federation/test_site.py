"""A site between the wire and its data: what it does for an order, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from fedser.errors import QuorumError
from fedser.federation import wire
from fedser.federation.audit import AuditLog
from fedser.federation.layout import elements, pack, tensor_digest
from fedser.federation.policy import Policy
from fedser.federation.schema import Code, Refusal, Update


def first_order(lab: Any, site: Any, plan: Any = None, /, **changes: Any) -> tuple[Any, torch.Tensor]:
    plan = plan or lab.plan({site.name: site})
    tensors = changes.pop("tensors", lab.start(plan))
    order = lab.provider({site.name: site}, plan).order(1, site.name, changes.pop("phase", "train"), tensors)
    work = replace(order.work, **changes.pop("work", {}))
    return replace(order, work=work, **changes), tensors


def ask(lab: Any, site: Any, order: Any, tensors: torch.Tensor, key: Any = None) -> Any:
    reply = site.answer(wire.encode(order, tensors, key or lab.order_key))
    return wire.decode_reply(reply, lab.key(int(site.name[-1])).public_hex)


def refused(lab: Any, site: Any, order: Any, tensors: torch.Tensor, key: Any = None) -> Code | None:
    before = site.state
    message, flat = ask(lab, site, order, tensors, key)
    if isinstance(message, Update):
        return None
    assert isinstance(message, Refusal)
    assert len(flat) == 0
    assert site.state is before
    return message.code


def test_the_update_is_the_change_of_the_ordered_tensors_alone(lab: Any) -> None:
    site = lab.site(1)
    order, tensors = first_order(lab, site)
    message, flat = ask(lab, site, order, tensors)
    assert isinstance(message, Update)
    assert message.order_digest == wire.order_digest(order)
    assert len(flat) == elements(order.layout) == len(tensors)
    assert 0 < flat.norm() < 20
    assert message.utterances == 50  # 24 utterances, told in units of 50
    travelling = {name for name, _ in order.layout}
    assert not travelling & set(site.data.model.first_layer())
    assert set(site.state.own) == set(site.data.model.state_dict()) - travelling
    assert any("running_mean" in name for name in site.state.own)


def test_layers_that_do_not_travel_are_kept_or_adapted_by_policy(lab: Any) -> None:
    first = lab.data().model.first_layer()
    signed = dict(lab.data().model.named_parameters())
    for policy, same in ((Policy(own_layers="keep"), True), (Policy(), False)):
        site = lab.site(1, policy)
        ask(lab, site, *first_order(lab, site))
        assert all(torch.equal(site.state.own[name], signed[name]) == same for name in first)


def test_the_same_order_gives_the_same_bytes_on_two_machines(lab: Any) -> None:
    a, b = lab.site(1), lab.site(1)
    order, tensors = first_order(lab, a)
    data = wire.encode(order, tensors, lab.order_key)
    assert a.answer(data) == b.answer(data)


def test_a_repeat_is_answered_with_the_stored_bytes_and_no_training(lab: Any) -> None:
    site = lab.site(1)
    order, tensors = first_order(lab, site)
    data = wire.encode(order, tensors, lab.order_key)
    reply, state = site.answer(data), site.state
    assert site.answer(data) == reply
    assert site.state is state


def test_an_order_to_finish_leaves_a_personal_model_and_no_tensor(lab: Any) -> None:
    site = lab.site(1)
    plan = lab.plan({"site-1": site}, steps=6, personal_steps=2)
    order, tensors = first_order(lab, site, plan, phase="finish", work={"steps": 2})
    message, flat = ask(lab, site, order, tensors)
    assert isinstance(message, Update)
    assert len(flat) == 0
    assert message.utterances is None
    assert message.scalars is None
    assert site.personal() is not None
    changed = pack(dict(site.personal().named_parameters()), plan.layout)
    assert not torch.equal(changed, tensors)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"site": "site-2"}, Code.OTHER_SITE),
        ({"study": "another"}, Code.OTHER_STUDY),
        ({"expires": 1}, Code.EXPIRED),
        ({"method": "nothing-installed"}, Code.METHOD),
        ({"method": "os.system"}, Code.METHOD),
        ({"options": {"temperature": -1.0}}, Code.METHOD),
        ({"options": {"no_such_option": 1}}, Code.METHOD),
        ({"work": {"steps": 0}}, Code.WORK),
        ({"work": {"batch_size": 2}}, Code.WORK),
        ({"work": {"batch_size": 5000}}, Code.WORK),
        ({"work": {"learning_rate": 1.0}}, Code.WORK),
        ({"work": {"learning_rate": 0.0}}, Code.WORK),
        ({"work": {"steps": 20_000, "total": 20_000}}, Code.WORK),
    ],
)
def test_orders_outside_the_policy_are_refused_with_a_code(lab: Any, change: dict, code: Code) -> None:
    site = lab.site(1)
    assert refused(lab, site, *first_order(lab, site, **change)) == code
    assert refused(lab, site, *first_order(lab, site)) is None  # and the site goes on


def test_an_order_of_someone_else_is_malformed(lab: Any) -> None:
    site = lab.site(1)
    order, tensors = first_order(lab, site)
    assert refused(lab, site, order, tensors, key=lab.key(7)) == Code.MALFORMED
    message, _ = wire.decode_reply(site.answer(b"nonsense"), lab.key(1).public_hex)
    assert message == Refusal(protocol=1, order_digest=None, code=Code.MALFORMED)


def test_an_earlier_round_or_a_changed_repeat_is_stale(lab: Any) -> None:
    site = lab.site(1)
    order, tensors = first_order(lab, site)
    ask(lab, site, replace(order, round=3), tensors)
    assert refused(lab, site, replace(order, round=2), tensors) == Code.STALE
    assert refused(lab, site, replace(order, round=3, seed=5), tensors) == Code.STALE
    assert refused(lab, site, replace(order, round=3, attempt=1), tensors) is None


def test_rounds_run_out(lab: Any) -> None:
    site = lab.site(1, Policy(rounds=2))
    order, tensors = first_order(lab, site)
    codes = [refused(lab, site, replace(order, round=number), tensors) for number in (1, 2, 3)]
    assert codes == [None, None, Code.ROUNDS_SPENT]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(lab: Any, value: float) -> None:
    site = lab.site(1)
    tensors = lab.start(lab.plan({"site-1": site})).clone()
    tensors[3] = value
    order, tensors = first_order(lab, site, tensors=tensors)
    assert refused(lab, site, order, tensors) == Code.NOT_FINITE


def test_one_layer_outside_the_radius_is_refused(lab: Any) -> None:
    site = lab.site(1)
    plan = lab.plan({"site-1": site})
    for scale, code in ((1.5, None), (3.0, Code.RADIUS)):
        tensors = lab.start(plan).clone()
        name, shape = plan.layout[0]
        size = torch.Size(shape).numel()
        tensors[:size] *= scale
        tensors[:size] += 0.0 if scale < 2 else 1.0
        assert refused(lab, site, *first_order(lab, site, plan, tensors=tensors)) == code, name
        site = lab.site(1)


@pytest.mark.parametrize("leave", ["none", "head", "all_but_first", "all"])
def test_tensors_that_the_policy_keeps_are_refused(lab: Any, leave: str) -> None:
    site = lab.site(1, Policy(leave=leave))
    model = site.data.model
    allowed = Policy(leave=leave).may_leave(model.adaptable(), model.first_layer())
    for name, parameter in model.named_parameters():
        tensors = parameter.detach().flatten()
        order, _ = first_order(lab, site)
        order = replace(order, layout=((name, tuple(parameter.shape)),), tensor_digest=tensor_digest(tensors))
        expected = None if name in allowed else Code.LAYOUT
        if expected is not None:  # what may leave is tested above
            assert refused(lab, site, order, tensors) == expected


@pytest.mark.parametrize("leave", ["none", "head", "all_but_first"])
def test_no_order_sets_the_first_layer_not_even_the_last(lab: Any, leave: str) -> None:
    site = lab.site(1, Policy(leave=leave))
    model = site.data.model
    for name, parameter in model.named_parameters():
        order, _ = first_order(lab, site, phase="finish", work={"steps": 0})
        tensors = parameter.detach().flatten()
        order = replace(order, layout=((name, tuple(parameter.shape)),), tensor_digest=tensor_digest(tensors))
        site = lab.site(1, Policy(leave=leave))
        assert refused(lab, site, order, tensors) == (Code.LAYOUT if name in model.first_layer() else None), name


def test_running_statistics_and_unknown_tensors_cannot_be_ordered(lab: Any) -> None:
    site = lab.site(1, Policy(leave="all"))
    buffers = [name for name in site.data.model.state_dict() if "running_mean" in name]
    for name in (*buffers, "encoder.nothing"):
        order, _ = first_order(lab, site)
        tensors = torch.zeros(8)
        order = replace(order, layout=((name, (8,)),), tensor_digest=tensor_digest(tensors))
        assert refused(lab, site, order, tensors) == Code.LAYOUT


def test_too_little_data_stays_at_home(lab: Any) -> None:
    few = lab.site(1, Policy(utterances_min=8), lab.data(1, utterances=7))
    assert refused(lab, few, *first_order(lab, few)) == Code.TOO_LITTLE_DATA
    lonely = lab.site(1, Policy(speakers_min=3))
    assert refused(lab, lonely, *first_order(lab, lonely)) == Code.TOO_LITTLE_DATA


def test_the_update_is_clipped_to_the_policys_norm(lab: Any) -> None:
    free, bound = lab.site(1), lab.site(1, Policy(clip=0.01))
    order, tensors = first_order(lab, free)
    long, short = (ask(lab, site, order, tensors)[1] for site in (free, bound))
    assert long.norm() > 0.011
    assert short.norm().item() == pytest.approx(0.01, rel=1e-5)
    assert torch.allclose(short / short.norm(), long / long.norm(), atol=1e-5)


def test_counts_and_scalars_leave_only_where_the_policy_says_so(lab: Any) -> None:
    site = lab.site(1, Policy(counts=False, scalars=False))
    message, _ = ask(lab, site, *first_order(lab, site))
    assert (message.utterances, message.scalars) == (None, None)


def test_a_stage_that_fails_is_a_refusal(lab: Any) -> None:
    def broken(work: Any) -> Any:
        raise ValueError("speaker f1 said something")

    site = lab.site(1, stages=(broken,))
    assert refused(lab, site, *first_order(lab, site)) == Code.FAILED


def test_an_update_that_is_not_finite_or_of_another_length_does_not_leave(lab: Any) -> None:
    for flat in (torch.full((8,), float("nan")), torch.zeros(3)):
        site = lab.site(1, stages=(lambda work, flat=flat: replace(work, update=flat),))
        assert refused(lab, site, *first_order(lab, site)) == Code.FAILED


@pytest.mark.parametrize("unit", [1, 2_000_000])
def test_counts_leave_in_coarse_steps_or_not_at_all(unit: int) -> None:
    assert [Policy().coarse(n) for n in (1, 70, 99)] == [50, 50, 100]
    with pytest.raises(ValidationError, match="count_unit"):
        Policy(count_unit=unit)


def test_a_count_beyond_the_schema_is_a_refusal(lab: Any) -> None:
    site = lab.site(1, Policy().model_copy(update={"count_unit": 2_000_000}))
    assert refused(lab, site, *first_order(lab, site)) == Code.FAILED


def test_what_leaves_is_recorded_first(lab: Any) -> None:
    log = AuditLog()
    site = lab.site(1, audit=log)
    order, tensors = first_order(lab, site)
    reply = site.answer(wire.encode(order, tensors, lab.order_key))
    site.answer(b"nonsense")
    update, refusal = log.records
    assert (update["event"], update["round"], update["bytes"]) == ("update", 1, len(reply))
    assert update["order"] == wire.order_digest(order)
    assert (refusal["event"], refusal["code"]) == ("refusal", "MALFORMED")


def test_nothing_leaves_when_the_log_cannot_be_written(lab: Any) -> None:
    class Full(AuditLog):
        def append(self, entry: Any) -> str:
            raise OSError("disk full")

    site = lab.site(1, audit=Full())
    order, tensors = first_order(lab, site)
    before = site.state
    for _ in range(2):  # the work is done and kept; its answer does not leave, not even as a repeat
        with pytest.raises(OSError, match="disk full"):
            site.answer(wire.encode(order, tensors, lab.order_key))
    assert before.round == 0
    assert site.state.round == 1


def test_no_site_answers_no_round(lab: Any) -> None:
    sites = {"site-1": lab.site(1, Policy(methods=("bn",)))}
    plan = lab.plan(sites)
    with pytest.raises(QuorumError, match="0 valid updates") as caught:
        lab.provider(sites, plan).run(lab.start(plan))
    assert "site-1: METHOD" in caught.value.hint
