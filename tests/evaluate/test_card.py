"""The model card: the privacy that held is the one that it names, attacks stand in a table, nothing becomes markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedser.attacks.card import rows
from fedser.attacks.findings import Finding
from fedser.cli import app
from fedser.errors import UsageError
from fedser.evaluate.report import CARD, attach, write_report
from fedser.privacy.sentences import facts
from fedser.privacy.settings import PrivacySettings


def results(**changes: Any) -> dict[str, Any]:
    plain = {
        "kind": "adapt",
        "name": "site-a in the study s",
        "made_by": "fedser-client",
        "date": "2026-11-20",
        "bundle": {"name": "b", "version": 1, "corpora": ["emodb"]},
        "method": "ecan",
        "classes": ["anger", "neutral"],
        "utterances": 40,
        "speakers": 4,
        "quarantined": 1,
        "metrics": None,
    }
    return plain | changes


def left(privacy: dict[str, Any]) -> dict[str, Any]:
    record = {"event": "update", "round": 1, "attempt": 0, "bytes": 4000}
    return {"study": "s", "site": "site-a", "policy": "p", "privacy": privacy, "records": [record], "head": "ab" * 32}


def written(folder: Path, values: dict[str, Any]) -> str:
    (folder / "results.json").write_text(json.dumps(values))
    write_report(folder)
    return (folder / CARD).read_text()


def test_the_card_names_unit_epsilon_delta_accountant_and_what_left(tmp_path: Path) -> None:
    private = PrivacySettings(unit="speaker", epsilon=4, delta=1e-6, groups=500)
    told = written(tmp_path, results(left=left(facts(private) | {"spent": 1.25, "left": 2.75})))
    for cell in ("| unit | speaker |", "| ε (budget) | 4.0 |", "| δ | 1e-06 |", "| ε spent | 1.25 |", "(PRV)"):
        assert cell in told
    assert "any one declared speaker" in told
    assert "no differential privacy" not in told
    assert "1 orders were answered and 4.0 kB left" in told
    assert "ab" * 32 in told
    assert "Spent so far: ε = 1.25 of 4" in (tmp_path / "report.html").read_text()


def test_the_card_of_a_policy_without_privacy_promises_none(tmp_path: Path) -> None:
    told = written(tmp_path, results(left=left(facts(PrivacySettings()))))
    assert "There is no differential privacy" in told
    assert "the provider sees it" in told
    assert "| ε (budget) | – |" in told
    alone = written(tmp_path, results())
    assert "No update left the site" in alone
    assert "differential" not in alone


def test_attack_results_are_attached_as_a_table(tmp_path: Path) -> None:
    run, lab = tmp_path / "run", tmp_path / "lab"
    run.mkdir()
    lab.mkdir()
    written(run, results())
    found = [
        Finding("gender", "private", "round 20", "UAR", 0.52, 0.5, 400, 0.48, 0.56, "bar", 0.55),
        Finding("gender", "none", "round 20", "UAR", 0.97, 0.5, 400, 0.95, 0.99, "control", 0.8),
    ]
    made = {"command": "fedser attack full.yaml", "git": "abc123", "created": "2026-11-20"}
    told = {"kind": "attack", "schema": 1, **made, "findings": [row.row() for row in found]}
    (lab / "results.json").write_text(json.dumps(told))
    done = CliRunner().invoke(app, ["report", str(run), "--attacks", str(lab)])
    assert done.exit_code == 0, done.exception
    card, page = (run / CARD).read_text(), (run / "report.html").read_text()
    for row in rows(lab):
        assert (
            "| " + " | ".join(row[key] or "–" for key in ("value", "interval", "chance", "of", "limit", "kept")) in card
        )
        assert row["interval"] in page
    assert "fedser attack full.yaml (revision abc123, 2026-11-20)" in card
    assert "No attack was run" not in card


def test_attacks_belong_to_an_adapted_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no adapted model"):
        attach(tmp_path, [])


def test_a_name_cannot_become_markup(tmp_path: Path) -> None:
    hostile = results(name="# Safe\n\n![x](http://evil.example/x.png) | <script>")
    told = written(tmp_path, hostile)
    assert "<script>" not in told.replace("\\<script\\>", "")
    assert "![x](" not in told
    assert told.count("\n# ") == 0


def test_a_withdrawal_stands_in_the_card(tmp_path: Path) -> None:
    gone = {"speakers": 1, "took_part": 1, "first_round": 2, "rebuilt_from": 2, "undone": ["what left stays"]}
    told = written(tmp_path, results(withdrawal=gone))
    assert "1 speaker has withdrawn" in told
    assert "- what left stays" in told
