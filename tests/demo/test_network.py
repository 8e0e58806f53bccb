"""The demonstration over a network: real processes, real TLS, small corpora."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedser.demo import network
from fedser.demo.corpus import SITES, SOURCE
from fedser.demo.demo import claim
from fedser.errors import FederationError

SOURCE_PLAN = replace(SOURCE, speakers=3, utterances=30)
SITE_PLANS = [replace(plan, speakers=2, utterances=10) for plan in SITES[:2]]


def test_a_study_ends_with_a_report_at_each_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path / "cache"))
    claim(tmp_path / "out", 0)
    (tmp_path / "out" / "provider").mkdir(mode=0o700)
    (tmp_path / "out" / "provider" / "study.json").write_text("what an earlier demonstration left")
    results = network.run(tmp_path / "out", rounds=2, source=SOURCE_PLAN, sites=SITE_PLANS)
    assert set(results["sites"]) == {"clinic", "phone"}
    for name, site in results["sites"].items():
        assert site["orders"] == 3
        assert 0 <= site["source"] <= 100
        assert "<html" in Path(site["report"]).read_text(encoding="utf-8")
        events = [
            json.loads(line)["event"] for line in (tmp_path / "out" / name / "audit.jsonl").read_text().splitlines()
        ]
        assert events == ["enrolment", "update", "update", "finished"]
    assert json.loads((tmp_path / "out" / "network.json").read_text())["rounds"] == 2


def test_a_process_that_fails_ends_the_others_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path / "cache"))
    work = network._Processes(tmp_path)
    with pytest.raises(FederationError, match=r"server ended with 3: .*rounds"), work.ended():
        work.start("server", "fedser_server", "start", "rounds=many", "--state", tmp_path / "state")
        work.wait_for_port(tmp_path / "state" / "status.json")
    assert all(process.poll() is not None for process in work._running.values())
