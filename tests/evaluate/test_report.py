"""Reports: what stands in the results stands in the page, escaped; the page asks for nothing."""

from __future__ import annotations

import copy
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedser.errors import UsageError
from fedser.evaluate import figures
from fedser.evaluate.pages import confusion_matrix, is_number, percent
from fedser.evaluate.report import write_report

HOSTILE = "<script>alert(1)</script>\"' onload=x $\\frac{"
CLASSES = ["anger", "neutral"]


def setting(label: str, uar: float, confusion: list[list[int]]) -> dict[str, Any]:
    scores = {"uar": uar, "war": uar, "macro_f1": uar, "ece": 0.1, "mean_site_uar": uar, "worst_site_uar": uar - 0.1}
    return {
        "label": label,
        "seeds": [{"seed": seed, **scores, "sites": {"clinic": uar, "phone": None}} for seed in (0, 1)],
        "mean": scores,
        "std": dict.fromkeys(scores, 0.02),
        "confusion": confusion,
        "recall": {"anger": 0.75, "neutral": None},
        "reliability": [{"confidence": 0.6, "accuracy": 0.5, "count": 10}],
    }


SIMULATION: dict[str, Any] = {
    "kind": "simulation",
    "schema": 1,
    "name": "A study",
    "created": "2026-01-31T12:00:00Z",
    "command": "fedser simulate study.yaml --out run",
    "versions": {"python": "3.11.7", "fedser": "0.1.0", "torch": None},
    "git": "abc123",
    "config": {"seeds": [0, 1], "federation": {"rounds": 5}},
    "seeds": [0, 1],
    "classes": CLASSES,
    "left_out": {"boredom": 3},
    "source": {"kind": "bundle", "name": "demo", "corpora": {}},
    "sites": [
        {
            "name": name,
            "utterances": 40,
            "speakers": 2,
            "emotions": {"anger": 20, "neutral": 20},
            "normalisation": {"rule": "shrunk", "kappa": 10.0, "reason": "two speakers"},
        }
        for name in ("clinic", "phone")
    ],
    "settings": {
        "source": setting("source model", 0.6123, [[3, 1], [0, 0]]),
        "alone": setting("each site alone", 0.65, [[3, 1], [0, 0]]),
        "federated": setting("one model for all", 0.705, [[30, 10], [5, 35]]),
        "pooled": setting("all data in one place", 0.75, [[30, 10], [5, 35]]),
    },
    "curves": {"federated": [{"seed": 0, "round": r, "uar": 0.6 + r / 50, "worst_site_uar": 0.5} for r in range(4)]},
    "uar": {},
    "refusals": [{"seed": 0, "setting": "federated", "round": 2, "site": "phone", "code": "norm"}],
    "embeddings": [
        {"label": side, "points": [[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]], "classes": [0, 1, -1]}
        for side in ("before", "after")
    ],
}

ADAPT: dict[str, Any] = {
    "kind": "adapt",
    "method": "ecan",
    "bundle": {"name": "emodb", "version": 1, "corpora": ["emodb"]},
    "seeds": [0],
    "classes": CLASSES,
    "allowed": CLASSES,
    "utterances": 40,
    "speakers": 2,
    "quarantined": 1,
    "normalisation": {"rule": "shrunk", "kappa": 10.0, "reason": "two speakers"},
    "history": [{"epoch": 0, "step": 3, "loss": 1.5, "entropy": 0.9}, {"epoch": 1, "step": 7, "loss": 1.2}],
    "answers": {"anger": 30, "neutral": 10},
    "mean_confidence": 0.81,
    "metrics": {
        **{"uar": 0.7, "war": 0.72, "macro_f1": 0.69, "ece": 0.08, "source_uar": 0.6, "scored": 38},
        **{"confusion": [[15, 4], [5, 14]], "recall": {"anger": 0.79, "neutral": 0.74}},
    },
}


class Page(HTMLParser):
    """Collects text, tags and attributes; complains about tags that do not close."""

    VOID = frozenset({"meta", "link", "img", "br", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def made(tmp_path: Path, results: dict[str, Any]) -> str:
    (tmp_path / "results.json").write_text(json.dumps(results))
    path = write_report(tmp_path)
    assert path == tmp_path / "report.html"
    return path.read_text(encoding="utf-8")


def test_a_simulation_shows_its_figures_and_its_limits(tmp_path: Path) -> None:
    html = made(tmp_path, SIMULATION)
    page = Page(html)
    for expected in (
        "A study",
        "61.2 ± 2.0",
        "70.5 ± 2.0",
        "raised UAR by 9.3 points",
        "joining was worth it: +5.5 points",
        "transductive",
        "Guessing among the 2 emotions that can be answered gives a UAR of 50.0 %",
        "no model was trained on them or chosen by them",  # held by test_labels_reach_no_contender
        "boredom (3)",
        "fedser simulate study.yaml --out run",
        "federation.rounds",
        "abc123",
        "Refused orders",
        "Before and after",
    ):
        assert expected in page.text, expected
    assert page.text.index("UAR") < page.text.index("WAR") < page.text.index("macro-F1")
    assert page.tags.count("svg") == 4
    # Every drawing tells in words what it shows.
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert any("source 61.2, alone 65.0, federated 70.5" in label for label in labels)
    # The best that sites can have is bold; pooling is nothing that they can have.
    bold = re.findall(r'class="number best">([^<]+)<', html)
    assert "70.5 ± 2.0" in bold
    assert "75.0 ± 2.0" not in bold


def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = Page(made(tmp_path, SIMULATION))
    assert "script" not in page.tags
    assert "link" not in page.tags
    for name, value in page.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("#")
    policies = [value for name, value in page.attributes if "default-src 'none'" in value]
    assert len(policies) == 1


def test_ids_are_unique_and_every_reference_has_its_target(tmp_path: Path) -> None:
    page = Page(made(tmp_path, SIMULATION))
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in page.attributes:
        for target in re.findall(r"url\(#([^)]+)\)", value) + ([value[1:]] if name == "xlink:href" else []):
            assert target in ids


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    results = copy.deepcopy(SIMULATION)
    results["name"] = results["source"]["name"] = results["command"] = results["git"] = HOSTILE
    results["notes"] = [HOSTILE]
    results["classes"] = [HOSTILE, "neutral"]
    results["config"] = {HOSTILE: HOSTILE}
    results["left_out"] = {HOSTILE: 1}
    results["refusals"][0]["site"] = HOSTILE
    results["sites"][0] |= {"name": HOSTILE, "emotions": {HOSTILE: 1}}
    for entry in results["settings"].values():
        entry["label"] = HOSTILE
    results["settings"][HOSTILE] = entry
    results["curves"][HOSTILE] = results["curves"]["federated"]
    html = made(tmp_path, results)
    page = Page(html)
    assert "script" not in page.tags
    assert not any(name.startswith("on") for name, _ in page.attributes)
    assert "<script" not in html
    assert "alert(1)" in page.text
    for figure in (tmp_path / "figures").glob("*.svg"):
        assert "<script" not in figure.read_text()


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert made(tmp_path / "a", SIMULATION) == made(tmp_path / "b", SIMULATION)
    first = {path.name: path.read_bytes() for path in (tmp_path / "a" / "figures").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b" / "figures").iterdir()}
    assert {"uar.svg", "rounds.svg", "reliability.svg", "confusion-federated.svg"} <= set(first)
    for data in first.values():
        ElementTree.fromstring(data)  # noqa: S314 - our own drawing


def test_sections_without_data_are_left_out(tmp_path: Path) -> None:
    page = Page(made(tmp_path, {"kind": "simulation", "classes": CLASSES, "seeds": [0]}))
    assert "What these figures mean" in page.text
    for absent in ("Over the rounds", "Confusion", "Sites", "Refused", "Before and after"):
        assert absent not in page.text


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    results = copy.deepcopy(SIMULATION)
    results["settings"]["federated"]["mean"]["uar"] = 0.55
    text = Page(made(tmp_path, results)).text
    assert "lowered UAR by 6.2 points" in text
    assert "not worth it: −10.0 points" in text


def test_an_adaptation_with_and_without_labels(tmp_path: Path) -> None:
    text = Page(made(tmp_path, ADAPT)).text
    assert "UAR went from 60.0 to 70.0 % (+10.0 points)" in text
    assert "1 recordings were set aside" in text
    assert "anger 30 75.0" in text
    text = Page(made(tmp_path, {**ADAPT, "metrics": None})).text
    assert "cannot say how often the answers are right" in text
    assert "Recall" not in text


def test_the_guards_choice_its_scores_and_a_source_that_was_kept(tmp_path: Path) -> None:
    scores = {"source": {"worth": 0.0, "prototype_margin": 0.3}, "aad": {"worth": -0.02, "prototype_margin": 0.25}}
    guard = {"chosen": "source", "reason": "No <better>.", "scores": scores, "uar": {"source": 0.6, "aad": 0.55}}
    text = Page(made(tmp_path, {**ADAPT, "method": "source", "guard": guard})).text
    assert "The source model, as published" in text
    assert "Adapted with source" not in text
    assert "was kept for 40 utterances" in text
    assert "Chosen: source. No <better>." in text
    assert "candidate worth prototype margin UAR source 0.000 0.300 60.0 aad -0.020 0.250 55.0" in text
    text = Page(made(tmp_path, {**ADAPT, "guard": {**guard, "chosen": "aad", "uar": None}})).text
    assert "was adapted to 40 utterances" in text
    assert "aad -0.020 0.250" in text
    assert "The guard" not in Page(made(tmp_path, {**ADAPT, "guard": None})).text


def test_a_benchmark_from_its_table(tmp_path: Path) -> None:
    columns = ("source", "target", "method", "features", "normalisation", "protocol", "target_set", "seed")
    fixed = {"features": "functionals", "normalisation": "auto", "protocol": "transductive", "target_set": "all"}
    rows = [
        {**fixed, "source": a, "target": b, "method": method, "seed": seed}
        | dict.fromkeys(("uar", "war", "macro_f1"), value + seed / 100)
        for (a, b) in (("emodb", "emovo"), ("emovo", "emodb"))
        for method, value in (("source", 0.4), ("ecan", 0.5))
        for seed in (0, 1)
    ]
    with (tmp_path / "results.csv").open("w", newline="") as handle:
        table = csv.DictWriter(handle, [*columns, "uar", "war", "macro_f1"])
        table.writeheader()
        table.writerows(rows)
    (tmp_path / "manifest.json").write_text(json.dumps({"command": "fedser bench", "settings": {"folds": 5}}))
    html = write_report(tmp_path).read_text()
    text = Page(html).text
    assert "emodb → emovo 50.5 ± 0.7 40.5 ± 0.7" in text
    assert "mean over pairs 50.5 ± 0.7" in text
    assert re.findall(r'class="number best">([^<]+)<', html)[0] == "50.5 ± 0.7"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "holds no results"),
        ("{", "is damaged"),
        ("[1]", "no JSON object"),
        ('{"kind": "cake"}', "kind that this version does not know"),
        ('{"kind": "simulation", "settings": {"source": 3}}', "is damaged"),
        ("[" * 100_000, "is damaged"),
    ],
)
def test_a_folder_that_is_no_run_is_a_clear_error(tmp_path: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UsageError, match=expected) as caught:
        write_report(tmp_path)
    assert caught.value.hint
    assert not (tmp_path / "report.html").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        write_report(tmp_path / "nowhere")


def test_numbers_that_do_not_exist_are_dashes() -> None:
    assert percent(None) == percent(float("nan")) == percent("x") == percent(True) == "–"
    assert percent(0.12345) == "12.3"
    assert not is_number(float("inf"))


def test_matrix_fields_are_percent_of_their_row() -> None:
    matrix = confusion_matrix("m", CLASSES, [[3, 1], [0, 0]])
    assert [[shade.text for shade in shades] for _, shades in matrix.rows] == [["75", "25"], ["–", "–"]]
    assert matrix.rows[0][1][0].shade == 8
    assert "3 of 4" in matrix.rows[0][1][0].title


def test_drawings_take_the_colour_of_the_page() -> None:
    svg = figures.bars(["a"], [50.0], [1.0], chance=20.0, label="UAR")
    assert "currentColor" in svg
    assert "50.0" in svg
