"""The audit through the real site: below the claim with the noise, above it without."""

from __future__ import annotations

from typing import Any

import pytest

from fedser.attacks import audit
from fedser.errors import PrivacyError
from fedser.federation.policy import Policy
from fedser.privacy.accountant import epsilon_of
from fedser.privacy.settings import PrivacySettings


def run(small: Any, privacy: PrivacySettings, canaries: int, **changes: Any) -> Any:
    settings = small.settings(audit={"canaries": canaries, "steps": 1}, **changes)
    return audit.run(settings, "private", Policy(privacy=privacy), small.source, small.keys)


def test_the_site_unit(small: Any) -> None:
    off, on = run(small, PrivacySettings(unit="site", noise=2.0), 200)
    claim = epsilon_of(2.0, 1.0, 1, 1e-5, discrete=True)
    assert off.limit == on.limit == claim
    assert off.role == "control"
    assert off.kept
    assert on.value <= claim
    assert on.kept


def test_the_speaker_unit_without_noise_is_noticed(small: Any) -> None:
    privacy = PrivacySettings(unit="speaker", noise=4.0, rate=0.9, groups=50)
    off, on = run(small, privacy, 50)
    assert off.limit == epsilon_of(4.0, 0.9, 1, 1e-5, discrete=False)
    assert off.value > off.limit
    assert off.kept
    assert on.kept


def test_a_policy_that_refuses_the_orders_is_told(small: Any) -> None:
    policy = Policy(methods=("shot",), privacy=PrivacySettings(unit="site"))
    with pytest.raises(PrivacyError, match="refuses"):
        audit.run(small.settings(), "private", policy, small.source, small.keys)


def test_noise_that_each_update_has_in_full_is_audited_site_by_site_and_shares_in_their_sum(small: Any) -> None:
    for unit, form, size in (("speaker", "local", 1), ("site", "local", 1), ("site", "central", 3)):
        masking = {"required": True, "honest": 3}
        privacy = PrivacySettings.model_validate({"unit": unit, "form": form, "noise": 2.0, "masking": masking})
        canaries = audit.Canaries(small.settings(), Policy(privacy=privacy), small.source, small.keys)
        assert len(canaries._cohort(True, False, 0)) == size
        assert len(canaries._cohort(True, True, 0)) == 1  # the control has no noise that others could share
