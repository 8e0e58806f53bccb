"""Gender and speaker inference: sites drawn as promised, found where nothing defends, not under noise."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from fedser.attacks import inference
from fedser.attacks.people import People
from fedser.attacks.sites import Defence, defended, undefended
from fedser.attacks.study import Attack
from fedser.config import load
from fedser.federation.policy import Policy
from fedser.privacy.accountant import noise_of
from fedser.privacy.settings import PrivacySettings

ROOT = Path(__file__).parents[2]


def test_sites_have_one_gender_and_folds_share_no_speaker(small: Any) -> None:
    drawn = inference.gender_sites(small.known, 40, 2, 12, 3, np.random.default_rng(0))
    owner = {row: name for name, rows in small.known.rows.items() for row in rows.tolist()}
    seen: dict[str, set[int]] = {}
    for site in drawn:
        names = {owner[row] for row in site.rows.tolist()}
        assert len(names) <= 2
        assert len(site.rows) == 12
        assert {small.known.gender[name] for name in names} == {site.label}
        for name in names:
            seen.setdefault(name, set()).add(site.group)
    assert all(len(folds) == 1 for folds in seen.values())
    assert {site.label for site in drawn} == {0, 1}


def test_attackers_and_victims_share_no_speaker(small: Any) -> None:
    assert not set(small.known.rows) & set(small.victims.rows)
    assert sorted([*small.known.rows, *small.victims.rows]) == sorted(small.people.rows)
    for part in (small.known, small.victims):
        assert len(part.named(0)) == len(part.named(1)) == 6


def test_recordings_of_a_known_speaker_are_either_the_attackers_or_the_sites(small: Any) -> None:
    names = small.victims.named()[:4]
    shadow, test = inference.speaker_sites(small.victims, names, 24, 24, 8, np.random.default_rng(0))
    mine = {row for site in shadow for row in site.rows.tolist()}
    theirs = {row for site in test for row in site.rows.tolist()}
    assert not mine & theirs
    assert {site.label for site in test} == {0, 1, 2, 3}


def chosen(small: Any, defence: Defence) -> list[Any]:
    settings = small.settings()
    crowd = [small.source.site(small.known, small.known.rows[name]) for name in small.known.named()[:2]]
    run = Attack(settings, small.source, defence, small.keys, 2, crowd)
    rng = np.random.default_rng(3)
    shadow = inference.gender_sites(small.known, 48, 1, 8, 3, rng)
    test = inference.gender_sites(small.victims, 48, 1, 8, 1, rng)
    quiet = defended("quiet", defence.policy, small.keys, noiseless=True)
    told = inference.infer(run, quiet, shadow, test, small.people, (1, 2))
    return inference.findings("gender", defence.name, told, (0.65, 0.8), 0)


def test_updates_tell_the_gender_and_noised_ones_do_not(small: Any) -> None:
    found = chosen(small, undefended())
    last = next(one for one in found if one.role == "control")
    assert last.where == "2 rounds, attacker’s choice"
    assert max(one.value for one in found) > 0.75
    assert {"1 round, encoder.layers.0", "2 rounds, bottleneck.0", "2 rounds, all"} <= {one.where for one in found}
    private = Policy(utterances_min=1, privacy=PrivacySettings(unit="site", epsilon=0.5, releases=2))
    judged = [one for one in chosen(small, defended("private", private, small.keys)) if one.role == "bar"]
    assert len(judged) == 2
    assert max(one.value for one in judged) < 0.85  # of 48 guesses 41 right by chance: once in a million
    assert not any("layers.0" in one.where for one in judged)


def named(small: Any, people: People, defence: Defence) -> Any:
    """The attacker's choice among four known speakers at 32 sites of one of them each."""
    settings = small.settings(study={"steps": 2, "bystanders": 2, "flatten": 1.0, "peer": {"weight": 3.0}})
    crowd = [small.source.site(small.known, small.known.rows[name]) for name in small.known.named()[:2]]
    run = Attack(settings, small.source, defence, small.keys, 1, crowd)
    drawn = inference.speaker_sites(people, people.named(), 32, 32, 24, np.random.default_rng(0))
    quiet = defended("quiet", defence.policy, small.keys, noiseless=True)
    told = inference.infer(run, quiet, *drawn, people, (1,))
    assert not run.refusals
    return inference.findings("speaker", defence.name, told, (0.5, 0.75), 0)[0]


def test_updates_tell_which_known_speaker_is_at_a_site_and_noised_ones_do_not(small: Any, four: People) -> None:
    control = named(small, four, undefended())
    assert control.role == "control"
    assert control.chance == 0.25
    assert control.value > 0.8
    assert named(small, four, defended("default", Policy(peer=True), small.keys)).value > 0.8
    private = PrivacySettings(unit="speaker", noise=1.24, rate=0.25, groups=500)
    bar = named(small, four, defended("private", Policy(utterances_min=1, privacy=private), small.keys))
    assert bar.role == "bar"
    assert bar.value < 0.78  # of 32 guesses 25 right by chance: less than once in a thousand million


def test_the_page_says_what_the_private_policy_cannot_promise() -> None:
    """An ideal attacker: every cut gradient is ±1 along one line, by gender, and noise and other sites are normal."""
    privacy = load(Policy, ROOT / "configs" / "policy" / "private.yaml").privacy
    speakers, steps, sites = 2, 2, privacy.masking.honest
    signal = speakers * steps * privacy.rate
    noise = noise_of(privacy) ** 2 * steps * sites  # of all sites of a round
    coins = sites * speakers * steps * privacy.rate * (1 - privacy.rate)
    others = (sites - 1) * signal**2  # women or men by chance
    spread = math.sqrt(noise + coins + others)
    reached = [NormalDist().cdf(signal * math.sqrt(rounds) / spread) for rounds in (1, 5, 20)]
    told = "about {:.0%} after one round, {:.0%} after five and {:.0%} after twenty".format(*reached).replace("%", " %")
    assert told in " ".join((ROOT / "docs" / "attacks.md").read_text(encoding="utf-8").split())
