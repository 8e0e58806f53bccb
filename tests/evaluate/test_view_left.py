"""What left a site, as the report tells it."""

from __future__ import annotations

from fedser.evaluate import view_left
from fedser.evaluate.pages import Page
from fedser.evaluate.report import render
from fedser.federation.audit import AuditLog

ENTRIES = [
    {"time": 0, "event": "enrolment", "bytes": 700, "sha256": "00"},
    {"time": 1, "event": "update", "round": 1, "attempt": 0, "bytes": 1_400_000, "norm": 2.0, "utterances": 50},
    {"time": 2, "event": "resent", "round": 1, "attempt": 0, "bytes": 1_400_000},
    {"time": 3, "event": "refusal", "code": "RADIUS", "order": None},
    {"time": 4, "event": "finished", "round": 2, "bytes": 500, "norm": 0.0, "utterances": None, "scalars": False},
]


def test_a_log_is_summed_up() -> None:
    log = AuditLog()
    for entry in ENTRIES:
        log.append(entry)
    told = view_left.summary(log.records)
    assert told["orders"] == 2  # an answer that is sent again is no second order
    assert told["bytes"] == 700 + 2 * 1_400_000 + 500
    assert told["refused"] == {"RADIUS": 1}
    assert told["head"] == log.last
    assert [record["event"] for record in told["records"]] == [entry["event"] for entry in ENTRIES]
    assert "sha256" not in told["records"][0]


def test_the_section_holds_the_figures_and_escapes_what_it_shows() -> None:
    left = {"records": [*ENTRIES, {"event": "<script>", "code": "<b>"}], "policy": "<i>", "head": "ff"}
    section = view_left.section({"left": left})
    assert section is not None
    html = render(Page("t", "k", ["l"], sections=[section]))
    assert "2 orders were answered and 2.8 MB left this site; refused by policy: 1 × RADIUS." in html
    assert "1970-01-01 00:00:04" in html
    assert "<script>" not in html
    assert "<b>" not in html


def test_an_adaptation_without_a_network_has_no_such_section() -> None:
    assert view_left.section({}) is None


def test_sizes() -> None:
    assert [view_left.size(n) for n in (0, 999, 1000, 999_949, 999_950, 1_400_000)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "1.4 MB",
    ]
