"""A run from settings to tables: the verdict, the card, and the exit codes that come of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fedser.attacks import card, report
from fedser.attacks.findings import Finding, missed, sentence
from fedser.attacks.run import policies_of, run
from fedser.attacks.settings import ATTACKS, AttackSettings
from fedser.config import load, validate
from fedser.errors import ConfigError, UsageError

ROOT = Path(__file__).parents[2]


def quick(speech: Path, **changes: Any) -> AttackSettings:
    """The imprint attack on a few synthetic speakers: seconds."""
    values: dict[str, Any] = {
        "attacks": "imprint",
        "corpora": {"tiny": str(speech)},
        "imprint": {"utterances": 40, "rounds": 1},
        "policy": str(ROOT / "configs" / "policy" / "private.yaml"),
    }
    return validate(AttackSettings, values | changes)


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("voices") / "tiny"
    write_corpus(folder, CorpusPlan("tiny", speakers=8, utterances=80, seconds=(0.5, 0.6)), seed=7)
    return folder


@pytest.fixture(scope="session")
def done(voices: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attacks") / "run"
    run(quick(voices), out, command="fedser attack <b>")
    return out


def test_the_tables_and_the_verdict(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert results["controls_failed"] == results["bars_missed"] == []
    assert {row["setting"] for row in results["findings"]} == {"none", "default", "private"}
    private = [row for row in results["findings"] if row["setting"] == "private"]
    assert all(row["role"] == "bar" and row["kept"] and row["value"] == 0 for row in private)
    first = results["findings"][0]
    assert first["role"] == "control"
    assert first["value"] >= first["limit"] > 0
    assert (done / "results.csv").read_text().count("\n") == 1 + len(results["findings"])
    summary = (done / "summary.md").read_text()
    assert "Without differential privacy updates can reveal inputs" in summary
    assert "refused: TRAP" in summary


def test_the_page_opens_offline_and_escapes_what_it_was_given(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.replace("</b>", "")
    assert "http://" not in page
    assert "https://" not in page


def test_the_card_gets_controls_bars_and_their_twins(done: Path) -> None:
    rows = card.rows(done)
    assert card.rows(done / "results.json") == rows
    assert {row["setting"] for row in rows} == {"no defence", "default policy", "private policy"}
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert any(row["limit"].startswith("≥") and row["kept"] == "yes" for row in rows)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "simulation", "schema": 1}', '{"kind": "attack"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UsageError, match="attack lab"):
        card.rows(tmp_path)


def test_limits() -> None:
    def one(**values: Any) -> Finding:
        return Finding("gender", "private", "x", "UAR", **({"value": 0.6, "chance": 0.5, "n": 9, "low": 0.5} | values))

    assert one(role="bar", limit=0.55).kept is False
    assert one(role="bar", limit=0.55, judge="low").kept is True
    assert one(role="bar", limit=0.45, judge="low").kept is False
    assert one(role="control", limit=0.65).kept is False
    assert one(role="control", limit=0.55).kept is True
    assert one().kept is None
    bad = [one(role="bar", limit=0.55), one(role="control", limit=0.65), one()]
    assert missed(bad, "bar") == bad[:1]
    assert "at most 0.55" in sentence(bad[0])
    assert "at least 0.65" in sentence(bad[1])


def test_no_private_policy_is_no_private_setting() -> None:
    with pytest.raises(ConfigError, match="private policy"):
        policies_of(AttackSettings())
    assert list(policies_of(AttackSettings(defences=("default",)))) == ["none", "default"]


@pytest.mark.parametrize("name", ["quick", "full"])
def test_recipes_fit(name: str) -> None:
    settings = load(AttackSettings, ROOT / "configs" / "attack" / f"{name}.yaml", [])
    assert set(settings.attacks) <= set(ATTACKS)
    assert settings.bars.gender == 0.55
    assert settings.bars.membership == 0.02
    assert settings.bars.imprint == 0
    assert name == "quick" or (settings.inference.test >= 400 and settings.inference.rounds == (1, 5, 20))
    with pytest.raises(ConfigError, match="did you mean|choose from"):
        load(AttackSettings, ROOT / "configs" / "attack" / f"{name}.yaml", ["attacks=gendre"])


@pytest.mark.parametrize(("given", "rounds"), [("7", (7,)), ("5,1", (1, 5)), ("[1, 20]", (1, 20))])
def test_rounds_of_the_command_line(given: str, rounds: tuple[int, ...]) -> None:
    recipe = ROOT / "configs" / "attack" / "quick.yaml"
    assert load(AttackSettings, recipe, [f"inference.rounds={given}"]).inference.rounds == rounds


def test_every_attack_has_a_title() -> None:
    assert set(report.TITLES) == set(ATTACKS)


@pytest.mark.parametrize(("value", "low", "lenient"), [(0.61, 0.51, True), (0.54, 0.45, False), (0.7, 0.6, False)])
def test_a_bar_that_only_the_low_end_keeps_is_called_so(value: float, low: float, lenient: bool) -> None:
    found = Finding("gender", "private", "1 round", "UAR", value, 0.5, 100, low, 0.8, "bar", 0.55, "low")
    told = report.verdict({"findings": [found.row()], "controls_failed": [], "bars_missed": []})
    assert any("only by the low end" in sentence for sentence in told) == lenient
