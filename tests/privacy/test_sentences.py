"""What the program says follows from the policy: each sentence stands where it is true, and nowhere else."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from fedser.privacy.ledger import Ledger
from fedser.privacy.sentences import facts, sentences
from fedser.privacy.settings import MaskingSettings, PrivacySettings, Unit

UNITS: tuple[Unit, ...] = ("none", "site", "speaker", "utterance")
MASKS = (
    MaskingSettings(),
    MaskingSettings(required=True, honest=3),
    MaskingSettings(required=True, honest=3, peers={"b": "ab" * 32}),
    MaskingSettings(required=True, honest=3, peers={"b": "ab" * 32}, active=True),
)


def policy(unit: Unit, masking: MaskingSettings) -> PrivacySettings:
    return PrivacySettings(unit=unit, epsilon=4, delta=1e-6, masking=masking)


@pytest.mark.parametrize(("unit", "masking"), list(itertools.product(UNITS, MASKS)))
def test_each_claim_stands_where_the_policy_makes_it_true(unit: Unit, masking: MaskingSettings) -> None:
    told = "\n".join(sentences(facts(policy(unit, masking))))
    assert ("There is no differential privacy" in told) == (unit == "none")
    assert ("not noised" in told) == (unit == "none")
    assert ("(ε, δ) = (4, 1e-06)" in told) == (unit != "none")
    assert ("No count and no figure" in told) == (unit != "none")
    for name, words in (("site", "all of this site's"), ("speaker", "one declared"), ("utterance", "any one utt")):
        assert (words in told) == (unit == name)
    assert ("the provider sees it" in told) == (not masking.required)
    assert ("the sum of at least 3" in told) == masking.required
    assert ("cannot invent sites" in told) == masking.active
    assert ("against no other" in told) == (masking.required and not masking.peers)


def test_a_budget_that_no_policy_names_is_not_said_to_last_over_studies() -> None:
    alone = "\n".join(sentences(facts(PrivacySettings(unit="site"))))
    shared = "\n".join(sentences(facts(PrivacySettings(unit="site", ledger=Path("/srv/ledger.jsonl")))))
    assert ("studies" in alone, "studies" in shared) == (False, True)
    assert ("a budget of its own" in alone, "a budget of its own" in shared) == (True, False)


def test_a_share_of_the_noise_is_called_one() -> None:
    masking = MaskingSettings(required=True, honest=3)
    told = "\n".join(sentences(facts(PrivacySettings(unit="site", form="central", masking=masking))))
    assert "Differential privacy in the sum" in told
    assert "the noise is that of 3 honest sites" in told
    assert "ε is 15.7 instead" in told


def test_without_facts_nothing_is_promised() -> None:
    assert sentences({}) == sentences(facts(PrivacySettings()))


def test_spent_and_left_are_the_ledgers() -> None:
    ledger = Ledger(None, "site-a", "site", 8.0, 1e-5)
    ledger.charge(5.0, 1.0, 3, study="s", round=1, attempt=0)
    told = facts(PrivacySettings(unit="site", noise=5.0), ledger)
    assert told["spent"] == pytest.approx(ledger.spent(), abs=1e-4)
    assert told["left"] == pytest.approx(8 - ledger.spent(), abs=1e-4)


def test_every_sentence_ends_as_one() -> None:
    for unit, masking in itertools.product(UNITS, MASKS):
        for sentence in sentences(facts(policy(unit, masking))):
            assert re.fullmatch(r"[A-Z].*\.", sentence), sentence
