"""The linear peer that sites share: its labels, its refit, who lets it go, and what sharing it brings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedser.adapt import Schedule, adapt, make, probabilities
from fedser.adapt.method import Gradient
from fedser.compute import generator
from fedser.config import validate
from fedser.errors import ConfigError, QuorumError
from fedser.evaluate.federate import Joined, federate
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation import wire
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.gate import Gate
from fedser.federation.layout import PEER, elements, unpack
from fedser.federation.peer import Pupil, Taught, Together, labels_of, layout_of_peer, refit, study
from fedser.federation.plan import Joining, Plan, beginning_of, plan_of, site_seed
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider
from fedser.federation.schema import Code, PeerWork, Refusal, Update
from fedser.federation.settle import settle
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, Received, ServerState, server_step
from fedser.models import EmotionClassifier, LinearClassifier
from tests.federation.conftest import CLASSES, FEATURES, ORDER_KEY, Wired, key, small_model

WORK = PeerWork(weight=3.0, penalty=0.2, steps=10, balance=0.5)
OPEN = Policy(peer=True)


def published() -> LinearClassifier:
    linear = LinearClassifier(FEATURES, CLASSES)
    linear.load_state_dict(
        {
            "weight": 0.3 * torch.randn(3, FEATURES, generator=generator("peer", "weight")),
            "bias": torch.tensor([0.1, -0.2, 0.1]),
        }
    )
    return linear.eval()


def data(number: int, utterances: int = 40) -> LocalData:
    x = torch.randn(utterances, FEATURES, generator=generator("peer", "data", number))
    return LocalData(small_model(), x, speakers=2, linear=published())


def the_plan(sites: int = 2, **changes: object) -> Plan:
    settings = validate(RoundSettings, {"peer": {"weight": 3.0}}).peer
    joining = Joining(2, 2, "all_but_first", "f32", settings, 0)
    names = {f"site-{n}": key(n).public_hex for n in range(1, sites + 1)}
    made = plan_of("study", small_model(), published(), make("ecan"), Schedule(steps=6, batch_size=16), joining, names)
    return replace(made, **changes)


def start(plan: Plan) -> Tensor:
    return beginning_of(small_model(), published(), plan.layout)


def site(number: int, policy: Policy = OPEN) -> Site:
    return Site(f"site-{number}", "study", data(number), policy, key(number), ORDER_KEY.public_hex)


def code_of(plan: Plan, policy: Policy) -> Code | None:
    """What a site of this policy says of the plan's first order."""
    flat = start(plan)
    order = Provider(plan, ORDER_KEY, Wired({}), ()).order(1, "site-1", "train", flat)
    reply = site(1, policy).answer(wire.encode(order, flat, ORDER_KEY))
    message, _ = wire.decode_reply(reply, key(1).public_hex)
    return message.code if isinstance(message, Refusal) else None


def test_labels_are_balanced_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
    assert labels_of(p, 0.0).tolist() == [0, 0, 0, 0]  # the site's mean answer is the prior
    assert labels_of(p, 1.0).tolist() == [0, 0, 1, 1]  # equal shares: the two least sure change over


def test_a_class_that_the_site_lacks_is_no_label() -> None:
    p = torch.tensor([[0.6, 0.0, 0.4], [0.55, 0.0, 0.45], [0.7, 0.0, 0.3]])
    assert 1 not in labels_of(p, 1.0)


def test_the_refit_is_the_balanced_penalised_optimum() -> None:
    """Against the same objective, written as a loop and minimised by another optimiser."""
    x = torch.randn(30, FEATURES, generator=generator("refit")).double()
    y = torch.tensor([0] * 20 + [1] * 7 + [2] * 3)
    linear = published()
    centre, bias = linear.weight.detach().double(), linear.bias.detach().double()
    weight = centre.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([weight], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14)

    def objective() -> Tensor:
        total = 0.1 * ((weight - centre) ** 2).sum()
        for row, label in zip(x, y.tolist(), strict=True):
            logits = weight @ row + bias
            total = total + (logits.logsumexp(0) - logits[label]) / (3 * int((y == label).sum()))
        return total

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective()
        value.backward()
        return value

    optimiser.step(closure)
    found = refit(linear.weight, linear, x.float(), y, replace(WORK, steps=1000))
    assert torch.allclose(found.double(), weight.detach(), atol=1e-4)
    short = refit(linear.weight, linear, x.float(), y, WORK)
    assert 0 < float((short - found).norm()) < float((linear.weight.detach() - found).norm())


def test_the_term_is_cross_entropy_beside_the_methods_own() -> None:
    local, labels = data(1), torch.arange(40) % 3
    seen: dict[str, dict[str, float]] = {}

    class Spy(Taught):
        def loss(self, batch):  # type: ignore[no-untyped-def]
            parts = super().loss(batch)
            inner = self._method.loss(batch)
            expected = torch.stack(
                [-batch.logits[row].log_softmax(0)[labels[number]] for row, number in enumerate(batch.index.tolist())]
            )
            seen["all"] = {name: float(value.detach()) for name, value in parts.items()}
            seen["by hand"] = {
                **{n: float(v.detach()) for n, v in inner.items()},
                "peer": 2 * float(expected.detach().mean()),
            }
            return parts

    method = make("ecan")
    assert isinstance(method, Gradient)
    adapt(local.model, local.x, Spy(method, labels, 2.0), Schedule(steps=1, batch_size=16), seed=0)
    assert seen["all"] == pytest.approx(seen["by hand"], rel=1e-5)


def test_it_leaves_only_where_the_policy_says_so() -> None:
    plan = the_plan()
    assert code_of(plan, OPEN) is None
    assert code_of(plan, Policy()) is Code.LAYOUT
    assert code_of(plan, Policy(peer=True, leave="none")) is Code.LAYOUT
    assert code_of(plan, Policy(peer=True, peer_steps_min=11)) is Code.WORK
    assert code_of(replace(plan, peer=None), OPEN) is Code.LAYOUT  # a tensor that no order explains
    without = replace(plan, layout=plan.layout[:-1])
    assert code_of(without, OPEN) is Code.LAYOUT  # an order to share what does not travel


def test_a_site_without_a_published_peer_refuses() -> None:
    plan = the_plan()
    bare = Site("site-1", "study", replace(data(1), linear=None), OPEN, key(1), ORDER_KEY.public_hex)
    order = Provider(plan, ORDER_KEY, Wired({}), ()).order(1, "site-1", "train", start(plan))
    message, _ = wire.decode_reply(bare.answer(wire.encode(order, start(plan), ORDER_KEY)), key(1).public_hex)
    assert isinstance(message, Refusal)
    assert message.code in (Code.MALFORMED, Code.LAYOUT)  # more values than its bundle has, or no such tensor


def test_a_peer_far_from_the_published_one_is_refused() -> None:
    plan = the_plan()
    far = start(plan)
    far[-3 * FEATURES :] += 3.0
    order = Provider(plan, ORDER_KEY, Wired({}), ()).order(1, "site-1", "train", far)
    message, _ = wire.decode_reply(site(1).answer(wire.encode(order, far, ORDER_KEY)), key(1).public_hex)
    assert isinstance(message, Refusal)
    assert message.code is Code.RADIUS


def test_the_update_holds_the_change_of_the_refit() -> None:
    plan, local = the_plan(), data(1)
    flat = start(plan)
    order = Provider(plan, ORDER_KEY, Wired({}), ()).order(1, "site-1", "train", flat)
    message, update = wire.decode_reply(site(1).answer(wire.encode(order, flat, ORDER_KEY)), key(1).public_hex)
    assert isinstance(message, Update)
    assert len(update) == elements(plan.layout)
    model = small_model()
    settle(model, local.x)
    pupil = study(
        Pupil(model, published().weight),
        local.x,
        make("ecan"),
        plan.schedule,
        WORK,
        published(),
        seed=site_seed(0, "site-1"),
        start=0,
        total=6,
        steps=2,
    )
    expected = pupil.weight - published().weight
    assert torch.allclose(unpack(update, plan.layout)[PEER], expected, atol=1e-7)
    answers = labels_of(probabilities(pupil.model, local.x), WORK.balance)
    assert torch.equal(pupil.weight, refit(published().weight, published(), local.x, answers, WORK))


@pytest.mark.parametrize("optimiser", ["momentum", "adam"])
def test_the_server_moves_the_peer_by_the_plain_mean(optimiser: str) -> None:
    layout = (("net", (4,)), (PEER, (2, 3)))
    before = torch.randn(10, generator=generator("server", "before"))
    flats = [torch.randn(10, generator=generator("server", n)) for n in range(3)]
    received = [Received(f"site-{n}", Update(1, "0" * 64, "0" * 64, None, None), flat) for n, flat in enumerate(flats)]
    settings = validate(AggregationSettings, {"optimiser": optimiser, "momentum": 0.5})
    after, _ = server_step(server_stages(settings, layout), before, received, ServerState())
    mean = torch.stack(flats).mean(dim=0)
    assert torch.allclose(after[4:], (before + mean)[4:], atol=1e-6)
    assert not torch.allclose(after[:4], (before + mean)[:4], atol=1e-3)
    plain, _ = server_step(server_stages(settings), before, received, ServerState())
    assert torch.equal(after[:4], plain[:4])


def members(count: int) -> list[SiteWorld]:
    return [SiteWorld(f"site-{n}", (), data(n), None) for n in range(1, count + 1)]  # type: ignore[arg-type]


def run(count: int, policy: Policy = OPEN, personal: int = 0, **settings: object) -> Joined:
    values = {"peer": {"weight": 3.0}, "aggregation": {"rate": 1.0}, **settings}
    return federate(
        members(count),
        small_model(),
        make("ecan"),
        Schedule(steps=8, batch_size=16, learning_rate=0.01),
        validate(RoundSettings, values),
        policy,
        study="study",
        rounds=2,
        personal_steps=personal,
        seed=0,
    )


def test_a_federation_of_one_is_a_site_alone() -> None:
    joined, local = run(1), data(1)
    assert joined.refusals == []
    pupil = Pupil(small_model(), published().weight)
    for begin in (0, 4):
        settle(pupil.model, local.x)
        pupil = study(
            pupil, local.x, make("ecan"), Schedule(steps=8, batch_size=16, learning_rate=0.01), WORK, published(),
            seed=site_seed(0, "site-1"), start=begin, total=8, steps=4,
        )  # fmt: skip
    assert torch.allclose(joined.tensors[PEER], pupil.weight, atol=1e-5)
    for name, tensor in joined.tensors.items():
        if name != PEER:
            assert torch.allclose(tensor, dict(pupil.model.named_parameters())[name], atol=1e-5)


def test_the_last_adaptation_follows_the_peer_too() -> None:
    joined = run(3, personal=3)
    assert joined.refusals == []
    assert PEER in joined.tensors
    without = run(3, personal=3, peer={})
    assert PEER not in without.tensors
    one, other = (dict(each.models[0].named_parameters()) for each in (joined, without))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_small_encodings_carry_it() -> None:
    exact, small = run(2).tensors[PEER], run(2, encoding="i8").tensors[PEER]
    change = (exact - published().weight.detach()).norm()
    assert 0 < float((small - exact).norm()) < 0.02 * float(change)


def test_where_it_cannot_be_shared() -> None:
    with pytest.raises(QuorumError, match="0 valid updates"):
        run(2, Policy())
    with pytest.raises(ConfigError, match="without a linear peer"):
        layout_of_peer(None)
    with pytest.raises(ConfigError, match="trains nothing"):
        study(
            Pupil(small_model(), published().weight), data(1).x, make("bn"), Schedule(steps=1), WORK, published(),
            seed=0, start=0, total=1, steps=1,
        )  # fmt: skip


def test_sharing_brings_what_one_site_cannot_know() -> None:
    """Two sites, each with a half of the classes' spread: the mean of the refits tells all classes apart."""
    x = torch.randn(240, FEATURES, generator=generator("brings", "x"))
    truth = torch.randn(3, FEATURES, generator=generator("brings", "truth"))
    y = functional.linear(x, truth).argmax(dim=1)
    parts = [(x[own], y[own]) for own in ((y != 0).nonzero().squeeze(1), (y != 2).nonzero().squeeze(1))]
    alone, joint = [published().weight, published().weight], published().weight
    for _ in range(10):
        alone = [refit(w, published(), *part, WORK) for w, part in zip(alone, parts, strict=True)]
        joint = torch.stack([refit(joint, published(), *part, WORK) for part in parts]).mean(dim=0)

    def right(weight: Tensor) -> float:
        return float((functional.linear(x, weight, published().bias).argmax(dim=1) == y).float().mean())

    assert right(joint) > max(right(weight) for weight in alone) + 0.02


def test_the_gate_knows_the_peers_size() -> None:
    plan = the_plan()
    limits = Gate("site-1", OPEN, data(1), site(1)._gate._audit).limits
    assert limits.elements == sum(p.numel() for p in small_model().parameters()) + 3 * FEATURES
    assert elements(plan.layout) <= limits.elements
    assert isinstance(small_model(), EmotionClassifier)


def test_sites_can_keep_their_networks_and_share_the_peer_alone() -> None:
    joined = run(2, network=False)
    assert joined.refusals == []
    assert set(joined.tensors) == {PEER}
    one, other = (dict(model.named_parameters()) for model in joined.models)
    assert all(not torch.equal(one[name], other[name]) for name in one if name.endswith("0.weight"))
    together = [local.x for local in (data(1), data(2))]
    assert all(bool(model(x).isfinite().all()) for model, x in zip(joined.models, together, strict=True))
    averaged = run(2)
    first, second = (dict(model.named_parameters()) for model in averaged.models)
    assert torch.equal(first["bottleneck.0.weight"], second["bottleneck.0.weight"])


def test_a_network_that_stays_keeps_what_it_learned_from_round_to_round() -> None:
    """One site that shares the peer alone makes the same network as one whose network goes there and back."""
    kept, sent = (dict(run(1, network=choice).models[0].named_parameters()) for choice in (False, True))
    assert all(torch.allclose(kept[name], sent[name], atol=1e-5) for name in kept)


def test_nothing_to_share_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Nothing would travel"):
        run(2, network=False, peer={})


def test_network_and_peer_answer_together_by_the_mean() -> None:
    model, local = small_model(), data(1)
    moved = published().weight.detach() + 0.1
    both = Together(model, published(), moved)
    linear = functional.linear(local.x, moved, published().bias).softmax(dim=1)
    expected = (model(local.x).softmax(dim=1) + linear) / 2
    assert torch.allclose(both(local.x).exp(), expected, atol=1e-6)
    assert torch.allclose(probabilities(both, local.x), expected, atol=1e-6)
