"""The policy's own words: hours, ranges, what cannot be allowed, and the file that explains itself."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedser.adapt import make
from fedser.config import load, validate
from fedser.errors import ConfigError
from fedser.federation import wire
from fedser.federation.policy import Policy, template
from fedser.federation.schema import Code, Refusal


def code_of(lab: Any, policy: Policy, clock: float = 1e9, **changes: Any) -> Code | None:
    site = lab.site(1, policy, clock=lambda: clock)
    plan = lab.plan({"site-1": site})
    tensors = lab.start(plan)
    order = replace(lab.provider({}, plan).order(1, "site-1", "train", tensors), **changes)
    message, _ = wire.decode_reply(site.answer(wire.encode(order, tensors, lab.order_key)), lab.key(1).public_hex)
    return message.code if isinstance(message, Refusal) else None


def test_the_template_reads_back_and_explains_every_key(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(template())
    assert load(Policy, path) == Policy()
    assert list(yaml.safe_load(template())) == list(Policy.model_fields)
    lines = template().splitlines()
    for name in Policy.model_fields:
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{name}:"))
        assert lines[place - 1].startswith("# "), name
    assert max(len(line) for line in lines) <= 120


@pytest.mark.parametrize(
    ("hours", "inside"),
    [
        (None, range(24)),
        ("22-6", [22, 23, 0, 1, 2, 3, 4, 5]),
        ("9-17", range(9, 17)),
        ("0-24", range(24)),
        ("18-24", range(18, 24)),
        ("18-0", range(18, 24)),
    ],
)
def test_hours_of_the_day(hours: str | None, inside: Any) -> None:
    assert [hour for hour in range(24) if Policy(hours=hours).at_work(hour)] == sorted(inside)


@pytest.mark.parametrize("hours", ["22", "25-6", "6-6", "six-seven", "22-6\n", "-3-4", "24-6"])
def test_hours_that_make_no_sense_are_refused(hours: str) -> None:
    with pytest.raises(ConfigError, match="hours"):
        validate(Policy, {"hours": hours})


def test_an_order_outside_the_hours_is_refused_by_the_sites_own_clock(lab: Any, monkeypatch: Any) -> None:
    at_noon_in_utc = 12 * 3600.0 + 86400 * 20_000
    try:
        for zone, expected in (("UTC", Code.HOURS), ("SBT-11", None)):  # 23:00 there
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            assert code_of(lab, Policy(hours="22-6"), at_noon_in_utc, expires=2**40) == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("key", ["statistics", "prototypes"])
def test_what_no_message_carries_cannot_be_allowed(key: str) -> None:
    with pytest.raises(ConfigError, match="no message of this version"):
        validate(Policy, {key: True})


def test_an_update_may_be_kept_small(lab: Any) -> None:
    plan = lab.plan({})
    size = len(lab.start(plan))
    assert code_of(lab, Policy(values_max=size)) is None
    assert code_of(lab, Policy(values_max=size - 1)) == Code.LAYOUT


@pytest.mark.parametrize(
    ("options", "order", "code"),
    [
        ({"ecan.temperature": [0.05, 1.0]}, {}, None),
        ({"ecan.temperature": [0.05, 1.0]}, {"temperature": 0.05}, None),
        ({"ecan.temperature": [0.05, 1.0]}, {"temperature": 0.01}, Code.METHOD),
        ({"ecan.temperature": [0.5, 1.0]}, {}, Code.METHOD),  # its default of 0.2
        ({"ecan.neighbours": [3, 9]}, {"neighbours": 10}, Code.METHOD),
        ({"ecan.denominator": ["bank"]}, {"denominator": "bank"}, None),
        ({"ecan.denominator": ["bank"]}, {"denominator": "batch"}, Code.METHOD),
        ({"ecan.freeze_head": [True]}, {"freeze_head": True}, None),
        ({"ecan.freeze_head": [True]}, {"freeze_head": False}, Code.METHOD),
        ({"shot.neighbour_share": [0, 0]}, {}, "unknown"),
    ],
)
def test_ranges_of_method_settings(lab: Any, options: dict, order: dict, code: Any) -> None:
    if code == "unknown":
        with pytest.raises(ConfigError, match="no option of an installed method"):
            validate(Policy, {"options": options})
    else:
        assert code_of(lab, validate(Policy, {"options": options}), options=order) == code


@pytest.mark.parametrize(
    "allowed", [[1.0, 0.5], [], [1.0], [0.1, 0.5, 1.0], "0.1-1", [float("nan"), 1.0], [1.0, float("nan")]]
)
def test_a_range_that_allows_nothing_is_refused(allowed: object) -> None:
    with pytest.raises(ConfigError):
        validate(Policy, {"options": {"ecan.temperature": allowed}})


def test_ranges_bind_their_own_method_alone() -> None:
    policy = validate(Policy, {"options": {"ecan.temperature": [0.5, 1.0]}})
    assert policy.allows("shot", make("shot").settings)
    assert not policy.allows("ecan", make("ecan").settings)
