"""A joint network that learns from each site's own one: who computes what, what travels, and what it brings."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional

from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.distil import DistilSettings, follow
from fedser.adapt.optimiser import batches
from fedser.compute import generator
from fedser.config import validate
from fedser.errors import ConfigError, PrivacyError
from fedser.federation import wire
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.layout import unpack
from fedser.federation.local import schedule_of
from fedser.federation.peer import PeerSettings
from fedser.federation.plan import Joining, Plan, plan_of, site_seed
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider
from fedser.federation.schema import Code, Order, Refusal, StudentWork, Update
from fedser.federation.settle import settle
from fedser.federation.site import Site
from fedser.federation.stages import Received, ServerState, server_step
from fedser.federation.student import StudentSettings, learn
from fedser.privacy.settings import PrivacySettings
from fedser.privacy.validity import Facts, check
from tests.federation.conftest import FEATURES, ORDER_KEY, Lab, key, small_model

STUDENT = StudentSettings(steps=9, learning_rate=0.05)


def the_plan(sites: dict[str, Site], **changes: Any) -> Plan:
    return replace(Lab.plan(sites, steps=6, rounds=3), student=STUDENT, **changes)


def answer(site: Site, plan: Plan, number: int, flat: Tensor, phase: Any = "train") -> tuple[Any, Tensor, Order]:
    order = Provider(plan, ORDER_KEY, Lab.wired({}), ()).order(number, site.name, phase, flat)
    message, update = wire.decode_reply(site.answer(wire.encode(order, flat, ORDER_KEY)), key(1).public_hex)
    return message, update, order


def own_network(plan: Plan, order: Order, x: Tensor) -> Any:
    seed = site_seed(0, "site-1")
    return adapt(small_model(), x, make(plan.method), schedule_of(order), seed=seed, whole=False).model


def test_the_update_is_what_the_joint_network_learnt_from_the_sites_own_one(lab: Lab) -> None:
    site = lab.site(1, Policy())
    plan, x = the_plan({"site-1": site}), site.data.x
    flat = lab.start(plan)
    message, update, order = answer(site, plan, 1, flat)
    assert isinstance(message, Update)
    own = own_network(plan, order, x)
    joint = small_model()
    settle(joint, x)
    before = {name: tensor.clone() for name, tensor in joint.named_parameters()}
    assert order.student is not None
    first = frozenset(joint.first_layer())  # it does not travel, and so it does not change
    learn(joint, own, x, order.student, make(plan.method), seed=site_seed(0, "site-1"), frozen=first)
    for name, change in unpack(update, plan.layout).items():
        assert torch.allclose(change, joint.state_dict()[name] - before[name], atol=1e-7)
    assert float(update.norm()) > 0
    assert all(torch.equal(site.state.own[name], before[name]) for name in first)
    kept = site.state.teacher
    assert any(not torch.equal(kept[name], before[name]) for name in first)
    assert all(torch.equal(kept[name], tensor) for name, tensor in own.state_dict().items())
    assert not any("head" in name for name in unpack(update, plan.layout))


def test_the_own_network_is_adapted_once_and_in_full_whenever_the_site_comes(lab: Lab) -> None:
    early, late = lab.site(1), lab.site(1)
    plan, flat = the_plan({"site-1": early}), lab.start(the_plan({"site-1": early}))
    for number in (1, 2):
        answer(early, plan, number, flat)
    first = early.state.teacher
    answer(late, plan, 2, flat)  # a site that missed the first round
    assert all(torch.equal(late.state.teacher[name], tensor) for name, tensor in first.items())
    changed = [not torch.equal(first[name], tensor) for name, tensor in small_model().named_parameters()]
    assert any(changed)


def test_a_step_is_the_gradient_of_the_stated_loss() -> None:
    """One step without momentum's history, against the loss written out utterance by utterance."""
    model, x = small_model(), torch.randn(16, FEATURES, generator=generator("x"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    answers = torch.randn(16, 3, generator=generator("answers")).softmax(dim=1)
    settings = DistilSettings(steps=1, learning_rate=0.05, mixup_weight=0.0)
    slow, fast = copy.deepcopy(model), copy.deepcopy(model)
    names = set(model.adaptable())
    loss = follow(fast, lambda _: answers, x, None, 0, settings, frozen={"head.bias"})

    (rows,) = batches(16, Schedule(steps=1), 0, 0, 1)
    noisy = x[rows] + 0.2 * torch.randn(x.shape, generator=generator("dine", "noise", 0))
    slow.train()
    logits = slow(noisy)
    total, mean = torch.zeros(()), torch.zeros(3)
    for place, row in enumerate(rows.tolist()):
        p = logits[place].exp() / logits[place].exp().sum()
        mean = mean + p / 16
        for k in range(3):
            total = total + answers[row, k] * (answers[row, k].log() - p[k].log()) / 16  # KL(answers ‖ p)
            total = total - p[k] * p[k].log() / 16  # + mean entropy
    total = total + (mean * mean.log()).sum()  # − entropy of the mean
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    total.backward()
    for name, parameter in slow.named_parameters():
        moved = fast.get_parameter(name).detach() - parameter.detach()
        if name not in names or name == "head.bias":
            assert not moved.any()
            continue
        gradient = parameter.grad + 1e-3 * parameter.detach()
        # Nesterov's first step with momentum μ is (1 + μ) times the gradient's.
        assert torch.allclose(moved, -0.05 * 1.9 * gradient, atol=1e-5), name


def test_the_orders_share_out_the_students_steps_and_the_own_networks_are_whole(lab: Lab) -> None:
    plan = the_plan(lab.sites(1), personal_steps=2)
    provider = Provider(plan, ORDER_KEY, lab.wired({}), ())
    flat = lab.start(plan)
    orders = [provider.order(number, "site-1", "train", flat) for number in (1, 2, 3)]
    orders.append(provider.order(4, "site-1", "finish", flat))
    works = [order.student for order in orders if order.student is not None]
    assert len(works) == 4
    assert works[0].start == 0
    assert all(a.start + a.steps == b.start for a, b in pairwise(works))
    assert works[-1].start + works[-1].steps == works[-1].total == 9
    assert works[-1].steps == 2
    assert all((order.work.start, order.work.steps, order.work.total) == (0, 6, 6) for order in orders)


def test_the_personal_model_is_the_joint_network_with_the_sites_statistics(lab: Lab) -> None:
    site = lab.site(1)
    plan = the_plan({"site-1": site})
    flat = lab.start(plan) + 0.01
    message, update, _ = answer(site, plan, 4, flat, "finish")
    assert isinstance(message, Update)
    assert len(update) == 0
    personal = site.personal()
    assert personal is not None
    expected = site.model(unpack(flat, plan.layout))
    for name, tensor in personal.state_dict().items():
        assert torch.allclose(tensor, expected.state_dict()[name]), name
    assert not site.state.teacher  # nothing was to be learnt


@pytest.mark.parametrize(
    ("policy", "student", "code"),
    [
        (Policy(steps_min=4), STUDENT, Code.WORK),
        (Policy(steps_max=5), STUDENT, Code.WORK),  # the own network's six
        (Policy(total_max=8), STUDENT, Code.WORK),
        (Policy(learning_rate_max=0.04), STUDENT, Code.WORK),
        (Policy(leave="none"), STUDENT, Code.LAYOUT),
        (Policy(steps_min=3, steps_max=6, total_max=9, learning_rate_max=0.05), STUDENT, None),
    ],
)
def test_a_policy_bounds_the_students_work(lab: Lab, policy: Policy, student: StudentSettings, code: Any) -> None:
    site = lab.site(1, policy)
    plan = replace(the_plan({"site-1": site}), student=student)
    message, _, _ = answer(site, plan, 1, lab.start(plan))
    assert (message.code if isinstance(message, Refusal) else None) is code


@pytest.mark.parametrize("unit", ["speaker", "utterance"])
def test_units_inside_a_site_refuse_it(unit: Any) -> None:
    privacy = validate(PrivacySettings, {"unit": unit, "epsilon": 8.0, "delta": 1e-6, "clip": 1.0})
    with pytest.raises(PrivacyError, match="the site's own one"):
        check(privacy, Facts(student=True))
    check(privacy, Facts(student=False))
    check(validate(PrivacySettings, {"unit": "site", "epsilon": 8.0, "delta": 1e-6, "clip": 1.0}), Facts(student=True))


def test_steps_beyond_the_schedule_are_no_order() -> None:
    with pytest.raises(ValidationError, match="after the schedule"):
        StudentWork(start=5, steps=5, total=9, learning_rate=0.02)


def test_a_student_takes_the_peers_place() -> None:
    joining = Joining(2, 0, "all_but_first", "f32", PeerSettings(weight=3.0), 0, student=STUDENT)
    with pytest.raises(ConfigError, match="no linear peer beside it"):
        plan_of("study", small_model(), None, make("ecan"), Schedule(steps=6), joining)
    with pytest.raises(ConfigError):
        alone = Joining(2, 0, "all_but_first", "f32", PeerSettings(), 0, network=False, student=STUDENT)
        plan_of("study", small_model(), None, make("ecan"), Schedule(steps=6), alone)


def test_the_servers_step_is_one_mean() -> None:
    update = Update(protocol=1, order_digest="0" * 64, tensor_digest="0" * 64, utterances=None, scalars=None)
    updates = [Received("a", update, torch.tensor([1.0])), Received("b", update, torch.tensor([3.0]))]
    for student, expected in ((True, 2.0), (False, 6.0)):
        stages = server_stages(AggregationSettings(), student=student)
        assert float(server_step(stages, torch.zeros(1), updates, ServerState())[0]) == pytest.approx(expected)


def test_the_joint_network_errs_less_than_any_of_its_teachers() -> None:
    """Four sites, whose own networks' answers are wrong for other rows: a third of them at each site."""
    truth = torch.arange(240) % 3
    x = 2.0 * torch.eye(FEATURES)[truth] + 0.7 * torch.randn(240, FEATURES, generator=generator("clusters"))
    joint, right = small_model(), []
    parts = torch.randperm(240, generator=generator("parts")).chunk(4)
    said = []
    for number, rows in enumerate(parts):
        wrong = torch.rand(len(rows), generator=generator("wrong", number)) < 1 / 3
        said.append(torch.where(wrong, (truth[rows] + 1) % 3, truth[rows]))
        right.append(float((said[-1] == truth[rows]).float().mean()))
    for round_ in range(6):
        students = [copy.deepcopy(joint) for _ in parts]
        for number, (student, rows) in enumerate(zip(students, parts, strict=True)):
            answers = 0.85 * functional.one_hot(said[number], 3) + 0.05
            settings = DistilSettings(steps=180, learning_rate=0.05)
            settle(student, x[rows])
            follow(student, lambda _, a=answers: a, x[rows], None, number, settings, start=30 * round_, steps=30)  # type: ignore[misc]
        names = [name for name, _ in joint.named_parameters()]
        mean = {n: torch.stack([student.get_parameter(n).detach() for student in students]).mean(dim=0) for n in names}
        joint.load_state_dict({**joint.state_dict(), **mean})
    settle(joint, x)
    found = float((probabilities(joint, x).argmax(dim=1) == truth).float().mean())
    assert found > max(right)
    assert found > sum(right) / 4 + 0.1
