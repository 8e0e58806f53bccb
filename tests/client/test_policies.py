"""The policy's file: every key explained, written once, never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fedser_client import policies
from fedser_client.state import SiteFolder

from fedser.errors import ConfigError, LedgerError
from fedser.federation.audit import AuditLog
from fedser.federation.policy import Policy
from fedser.privacy.settings import PrivacySettings


def test_the_default_file_is_the_default_policy(folder: Any) -> None:
    path = policies.place(folder, None)
    assert policies.read(path) == Policy()
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_key_stands_under_a_comment_that_explains_it() -> None:
    text = policies.default_text()
    assert set(yaml.safe_load(text)) == set(Policy.model_fields)
    for paragraph in text.split("\n\n")[1:]:
        lines = [line.strip() for line in paragraph.strip().splitlines()]
        comments = [line for line in lines if line.startswith("#")]
        assert sum(len(line) for line in comments) > 15, paragraph
        assert lines[0].startswith("# ")
    assert max(len(line) for line in text.splitlines()) <= 120


def test_a_policy_that_is_there_is_never_overwritten(folder: Any) -> None:
    path = policies.place(folder, None)
    path.write_text("leave: head\n")
    assert policies.place(folder, None) == path
    assert path.read_text() == "leave: head\n"
    assert policies.read(path).leave == "head"


def test_a_named_policy_must_be_there_and_fit(folder: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        policies.place(folder, tmp_path / "none.yaml")
    assert not folder.file("policy.yaml").exists()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("leaves: all\n")
    with pytest.raises(ConfigError, match="did you mean 'leave'"):
        policies.read(policies.place(folder, wrong))


def test_a_relative_ledger_lies_beside_the_policy_wherever_the_program_is_started(
    folder: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = tmp_path / "owner"
    beside.mkdir()
    path = beside / "policy.yaml"
    path.write_text("privacy: {unit: site, ledger: budget/ledger.jsonl}\n")
    monkeypatch.chdir("/")
    assert policies.read(path).privacy.ledger == beside / "budget" / "ledger.jsonl"
    path.write_text(f"privacy: {{unit: site, ledger: {tmp_path / 'elsewhere.jsonl'}}}\n")
    assert policies.read(path).privacy.ledger == tmp_path / "elsewhere.jsonl"


def test_two_state_folders_of_one_site_share_the_budget_that_their_policies_name(settings: Any, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("privacy: {unit: site, epsilon: 8, noise: 10, ledger: ledger.jsonl}\n")
    policy, spent = policies.read(path), []
    for name in ("one", "two"):
        folder = SiteFolder.make(tmp_path / name)
        budget = policies.ledger(folder, settings, policy)
        assert budget is not None
        budget.charge(10.0, 1.0, 1, study="study", round=1, attempt=0)
        spent.append(budget.spent())
        assert not folder.file("ledger.jsonl").exists()
    assert spent[1] > spent[0] > 0
    alone = policies.ledger(SiteFolder.make(tmp_path / "three"), settings, Policy(privacy=PrivacySettings(unit="site")))
    assert alone is not None
    assert alone.spent() == 0  # a policy that names no place has a budget of its own in each state folder


def test_a_ledger_that_is_behind_the_audit_log_is_refused(folder: Any, settings: Any) -> None:
    policy = Policy(privacy=PrivacySettings(unit="site", noise=10.0))
    budget = policies.ledger(folder, settings, policy)
    assert budget is not None
    budget.charge(10.0, 1.0, 1, study="study", round=1, attempt=0)
    AuditLog(folder.file("audit.jsonl")).append({"event": "update", "privacy": {"charges": 1}})
    assert len(policies.ledger(folder, settings, policy) or ()) == 1
    AuditLog(folder.file("audit.jsonl")).append({"event": "update", "privacy": {"charges": 2}})
    with pytest.raises(LedgerError, match="knows of 2"):
        policies.ledger(folder, settings, policy)
    for path in folder.path.glob("ledger*"):
        path.unlink()
    with pytest.raises(LedgerError):
        policies.ledger(folder, settings, policy)
    with pytest.raises(LedgerError):  # and so the status, instead of a fresh budget
        from fedser_client.commands.status import _privacy

        folder.file("policy.yaml").write_text("privacy: {unit: site, noise: 10}\n")
        _privacy(folder, settings)
