"""What is not sound under a privacy unit is refused, with the reason and the nearest sound setting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedser.errors import PrivacyError
from fedser.privacy.settings import PrivacySettings
from fedser.privacy.validity import RULES, Facts, check

SPEAKER, UTTERANCE = PrivacySettings(unit="speaker"), PrivacySettings(unit="utterance")
SITE, NONE = PrivacySettings(unit="site"), PrivacySettings()
MASKED = PrivacySettings.model_validate({"unit": "site", "form": "central", "masking": {"required": True}})

SOUND = Facts(
    method="ecan",
    groupwise=True,
    coupled=False,
    peer=False,
    batch_norm="published",
    features="published",
    sampling="poisson",
    declared=True,
    units=500,
    weighting="uniform",
)

# what is changed, the units under which it is refused, a word of the reason, a word of the nearest sound setting
UNSOUND = {
    "method": ({"groupwise": False}, (SPEAKER, UTTERANCE), "no form", "ecan"),
    "coupling": ({"coupled": True}, (SPEAKER, UTTERANCE), "several groups", "inside one group"),
    "batch statistics": ({"batch_norm": "batch"}, (SPEAKER, UTTERANCE), "Batch normalisation", "norm=group"),
    "site's statistics": ({"batch_norm": "site"}, (SPEAKER, UTTERANCE), "Batch normalisation", "published"),
    "site's z-scores": ({"features": "site"}, (SPEAKER, UTTERANCE), "normalised", "published"),
    "speaker's z-scores": ({"features": "unit"}, (UTTERANCE,), "normalised", "published"),
    "shuffling": ({"sampling": "shuffled"}, (SPEAKER, UTTERANCE), "coins", "Poisson"),
    "all at once": ({"sampling": "all"}, (SPEAKER, UTTERANCE), "coins", "Poisson"),
    "undeclared": ({"declared": False}, (SPEAKER,), "not declared", "--speaker-from"),
    "too many units": ({"units": 20_000}, (SPEAKER, UTTERANCE, SITE, MASKED), "delta", "5e-06"),
    "peer": ({"peer": True}, (SPEAKER, UTTERANCE), "peer", "peer: false"),
    "student": ({"student": True}, (SPEAKER, UTTERANCE), "own one", "student.steps: 0"),
    "counts": ({"weighting": "counts"}, (SPEAKER, UTTERANCE, SITE, MASKED), "Weights", "uniform"),
}
ALL = (SPEAKER, UTTERANCE, SITE, NONE, MASKED)


@pytest.mark.parametrize(("changes", "units", "reason", "nearest"), UNSOUND.values(), ids=UNSOUND)
def test_it_is_refused_where_it_is_unsound_and_nowhere_else(
    changes: dict[str, object], units: tuple[PrivacySettings, ...], reason: str, nearest: str
) -> None:
    facts = replace(SOUND, **changes)  # type: ignore[arg-type]
    for privacy in ALL:
        if privacy in units:
            with pytest.raises(PrivacyError, match=reason) as caught:
                check(privacy, facts)
            assert nearest in caught.value.hint
        else:
            check(privacy, facts)


@pytest.mark.parametrize("privacy", ALL, ids=lambda privacy: f"{privacy.unit} {privacy.form}")
def test_a_sound_run_passes_and_what_is_unknown_is_the_other_sides(privacy: PrivacySettings) -> None:
    check(privacy, SOUND)
    check(privacy, Facts())


def test_every_rule_has_a_case_here() -> None:
    """A rule without a case that it refuses would be one that nobody would miss."""
    caught = set()
    for changes, units, _, _ in UNSOUND.values():
        facts = replace(SOUND, **changes)  # type: ignore[arg-type]
        caught |= {rule for rule in RULES for privacy in units if rule(privacy, facts) is not None}
    assert caught == set(RULES)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"unit": "site", "delta": 1e-4}, "less than or equal"),
        ({"unit": "site", "units": 100_000}, "delta"),
        ({"unit": "utterance", "groups": 50_000}, "delta"),
        ({"unit": "site", "form": "central"}, "masking.required"),
        ({"unit": "speaker", "form": "central", "masking": {"required": True}}, "site unit"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_the_border(given: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        PrivacySettings.model_validate(given)
