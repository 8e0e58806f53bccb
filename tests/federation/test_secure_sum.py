"""A masked sum is the sum, bit by bit, whoever drops out and when, down to the threshold; and fails below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedser.errors import ConfigError, QuorumError
from fedser.federation import wire
from fedser.federation.aggregation import AggregationSettings, server_stages
from fedser.federation.plan import Plan
from fedser.federation.provider import Provider
from fedser.federation.schema import Code, Refusal
from fedser.federation.secure_schema import MaskedUpdate, MaskShares, Revealed
from fedser.federation.secure_settings import MaskingTerms, unsound
from fedser.federation.stages import ServerState
from tests.federation.conftest import Lab
from tests.federation.masks import SIZE, STEPS, Post, Stub, mean_of, name, plan, provider, start, stubs

MOMENTS = ("never", "keys", "shares", "train", "train after", "survivors", "unmask")


def outcome(sites: Mapping[str, Stub], silent: Mapping[str, str], **terms: object) -> torch.Tensor:
    node = provider(sites, Post(sites, {site: step for site, step in silent.items() if step != "never"}), **terms)
    return node.round(1, start(), ServerState())[0]


def left(silent: Mapping[str, str], step: str) -> list[str]:
    """Sites that answered a step."""
    steps = list(STEPS)
    return [
        site for site, since in silent.items() if since == "never" or steps.index(since.split()[0]) > steps.index(step)
    ]


def check(silent: Mapping[str, str], threshold: int) -> None:
    sites = stubs(len(silent))
    if min(len(left(silent, step)) for step in STEPS) < threshold:
        with pytest.raises(QuorumError, match=r"masked sum of round 1 has \d"):
            outcome(sites, silent, threshold=threshold)
    else:
        survivors = [sites[site] for site in left(silent, "train")]
        assert torch.equal(outcome(sites, silent, threshold=threshold), mean_of(survivors))


PATTERNS = list(combinations_with_replacement(MOMENTS, 4))


@pytest.mark.parametrize("part", range(4))
def test_every_pattern_of_dropouts_at_every_step(part: int) -> None:
    """All 210 ways in which four sites can drop out, each in a place by chance, at a threshold of three."""
    chance = np.random.default_rng(part)
    for pattern in PATTERNS[part::4]:
        moments = chance.permutation(np.array(pattern)).tolist()
        check({name(number): moment for number, moment in enumerate(moments)}, 3)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from((*MOMENTS, *["never"] * 8)), min_size=2, max_size=8), st.data())
def test_any_number_of_sites_and_any_threshold(moments: list[str], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(len(moments) // 2 + 1, len(moments)))
    check({name(number): moment for number, moment in enumerate(moments)}, max(threshold, 2))


@pytest.mark.parametrize("modulus", [32, 64])
def test_the_sum_is_that_of_the_integers(modulus: int) -> None:
    sites = stubs(3)
    assert torch.equal(outcome(sites, {}, modulus=modulus), mean_of(sites.values()))


def test_two_rounds_have_nothing_in_common_but_the_sum() -> None:
    """The same updates twice: the same sum, and no masked payload, key, box or share twice."""
    sites = stubs(3)
    post = Post(sites)
    node = provider(sites, post)
    first, state = node.round(1, start(), ServerState())
    second, _ = node.round(2, start(), state)
    assert torch.equal(first, second)
    replies = [wire.read(reply, sites[site].key.public_hex) for site, _, _, reply in post.passed]
    payloads = [opened.flat.numpy().tobytes() for opened in replies if isinstance(opened.message, MaskedUpdate)]
    boxes = [box for opened in replies if isinstance(opened.message, MaskShares) for box in opened.message.boxes]
    shares = [share for opened in replies if isinstance(opened.message, Revealed) for share in opened.message.seeds]
    for told in (payloads, boxes, shares):
        assert len(told) >= 6
        assert len(set(told)) == len(told)


def masked_rounds(lab: type[Lab], count: int, **options: object) -> tuple[torch.Tensor, torch.Tensor, Plan]:
    results = []
    for terms in (None, MaskingTerms()):
        sites = lab.sites(count)
        chosen = lab.plan(sites, masking=terms, **options)
        stages = server_stages(AggregationSettings(rate=1.0), masked=terms is not None)
        node = Provider(chosen, lab.order_key, lab.wired(sites), stages)
        results.append(node.run(lab.start(chosen)))
        assert node.refusals == []
        assert all(site.state.personal for site in sites.values())
    return results[0], results[1], chosen


def test_a_real_round_is_the_plain_one_within_the_grid() -> None:
    """Real sites, gates and training: each value of the mean is off by at most half a grid step a round."""
    plain, masked, _ = masked_rounds(Lab, 4, rounds=1)
    assert 0 < float((plain - masked).abs().max()) <= 2.0**-21 + 2.0**-23


def test_masked_rounds_are_bit_identical_in_two_runs() -> None:
    first, second = masked_rounds(Lab, 3)[1], masked_rounds(Lab, 3)[1]
    assert torch.equal(first, second)


def test_a_study_goes_on_without_sites_that_refuse() -> None:
    """A refusal at any step is a dropout; its code is told, and the sum is that of the others."""
    sites = stubs(4)

    def refuse(site: str, asked: object, reply: bytes) -> bytes:
        if site != name(2) or not isinstance(asked, STEPS["train"]):
            return reply
        refusal = Refusal(protocol=1, order_digest=wire.order_digest(asked), code=Code.FAILED)
        return wire.encode(refusal, wire.NOTHING, sites[site].key)

    node = provider(sites, Post(sites, change=refuse))
    after = node.round(1, start(), ServerState())[0]
    assert torch.equal(after, mean_of(stub for site, stub in sites.items() if site != name(2)))
    assert [(refused.site, refused.code) for refused in node.refusals] == [(name(2), "FAILED")]


def test_false_shares_of_one_site_spoil_nothing_where_there_is_one_to_spare() -> None:
    sites = stubs(4)

    def lie(site: str, asked: object, reply: bytes) -> bytes:
        message = wire.read(reply, sites[site].key.public_hex).message
        if site != name(1) or not isinstance(message, Revealed):
            return reply
        false = Revealed(1, message.task, message.survivors, tuple("00" * 33 for _ in message.seeds), message.keys)
        return wire.encode(false, wire.NOTHING, sites[site].key)

    node = provider(sites, Post(sites, change=lie))
    assert torch.equal(node.round(1, start(), ServerState())[0], mean_of(sites.values()))
    three = stubs(3)
    sites = three
    with pytest.raises(QuorumError, match="does not unmask"):
        provider(three, Post(three, change=lie)).round(1, start(), ServerState())


def test_a_sum_that_is_too_long_is_refused() -> None:
    """Noise of a site that did not keep to its bound: the round fails, and the model stays."""
    sites = stubs(3)
    sites[name(0)].integers = np.full(SIZE, 2**30, dtype=np.int64)
    node = provider(sites, Post(sites))
    node.plan = replace(plan(sites), largest_norm=10.0)
    with pytest.raises(QuorumError, match="longer than 10"):
        node.round(1, start(), ServerState())


def test_terms_follow_the_sites_and_must_fit() -> None:
    assert MaskingTerms().terms(10).threshold == 7
    assert MaskingTerms().terms(2).threshold == 2
    for terms, sites, words in (
        (MaskingTerms(), 1, "sum of 1 sites"),
        (MaskingTerms(threshold=5), 4, "threshold of 5"),
        (MaskingTerms(clip=1000.0), 10, "does not fit into 32 bits"),
    ):
        with pytest.raises(ConfigError, match=words):
            terms.terms(sites)
    assert MaskingTerms(clip=1000.0, modulus=64).terms(10).modulus == 64


@pytest.mark.parametrize(
    ("changes", "encoding", "words"),
    [
        ({"rule": "median"}, "f32", "single updates"),
        ({"rule": "trimmed_mean"}, "f32", "single updates"),
        ({"rule": "multi_krum"}, "f32", "single updates"),
        ({"rule": "norm_bounded"}, "f32", "masking.clip bounds each site"),
        ({"weighting": "counts"}, "f32", "uniform"),
        ({}, "f16", "cancels no more"),
        ({}, "i8", "cancels no more"),
    ],
)
def test_what_needs_single_updates_is_refused_with_masks(changes: dict[str, str], encoding: str, words: str) -> None:
    from fedser_server.settings import StudySettings

    from fedser.evaluate.simulation_settings import RoundSettings

    assert words in unsound(AggregationSettings(**changes), encoding)  # type: ignore[arg-type]
    for kind in (StudySettings, RoundSettings):
        kind(aggregation=changes, encoding=encoding)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=words):
            kind(aggregation=changes, encoding=encoding, masked=True)  # type: ignore[arg-type]
    assert unsound(AggregationSettings(), "f32") == ""
