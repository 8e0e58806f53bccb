"""The demo from end to end on a small scale, and what it does with folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fedser.bundle import format
from fedser.demo import demo
from fedser.demo.corpus import SITES, SOURCE
from fedser.errors import OutputError
from fedser.evaluate.report import write_report


def small(out: Path, seed: int = 0) -> dict[str, object]:
    """Two emotions, a few speakers, one seed."""
    pair = ("anger", "sadness")
    source = replace(SOURCE, speakers=4, utterances=24, emotions=pair, seconds=(0.8, 1.0))
    sites = [replace(plan, speakers=2, utterances=16, emotions=pair, seconds=(0.8, 1.0)) for plan in SITES]
    return demo.run(out, seed, seeds=1, source=source, sites=sites)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SCHEDULE", demo.SCHEDULE.model_copy(update={"steps": 10}))
        student = demo.JOINING.student.model_copy(update={"steps": 10})
        patch.setattr(demo, "JOINING", demo.JOINING.model_copy(update={"student": student}))
        patch.setenv("FEDSER_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("demo") / "out"
        return out, small(out)


def test_all_parts_are_there_and_told(finished: tuple[Path, dict[str, object]]) -> None:
    out, results = finished
    uar = results["uar"]
    assert isinstance(uar, dict)
    assert {"source", "alone", "federated", "personal", "pooled", "newcomer"} <= set(uar)
    assert all(0 <= value <= 100 for value in uar.values())
    assert results["report"] == str(out / "run" / "report.html")
    kept = json.loads((out / "run" / "results.json").read_text())
    assert kept["notes"] == [demo.NOTE]
    assert kept["seconds"] == results["seconds"]
    assert {site["name"] for site in kept["sites"]} == {"clinic", "phone", "office"}


def test_the_bundle_is_signed_by_the_demo_s_own_key(finished: tuple[Path, dict[str, object]]) -> None:
    out, _ = finished
    bundle = format.read(out / "source.safetensors", signer=(out / "key.pub").read_text().strip())
    assert bundle.header.corpora == ("source",)
    assert (out / "key").stat().st_mode & 0o077 == 0


def test_the_report_says_that_the_speech_is_synthetic_also_when_made_again(
    finished: tuple[Path, dict[str, object]],
) -> None:
    out, _ = finished
    first = (out / "run" / "report.html").read_text()
    assert "All speech in this run is synthetic" in first
    assert write_report(out / "run").read_text() == first


def test_a_folder_of_other_people_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="not of a demo"):
        small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(OutputError, match="is a file"):
        small(tmp_path / "thesis.txt")


def test_its_own_folder_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo.claim(tmp_path / "out", 0)
    (tmp_path / "out" / "speech").mkdir()
    demo.claim(tmp_path / "out", 1)
    assert json.loads((tmp_path / "out" / "fedser-demo.json").read_text())["seed"] == 1
