from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedser.adapt.guard import CANDIDATES
from fedser.errors import ConfigError, OutputError
from fedser.evaluate import bench, metrics
from fedser.evaluate.bench.target_sets import TARGET_SETS
from fedser.pretrained import Pretrained

CPU = torch.device("cpu")
Make = Callable[..., bench.BenchSettings]


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def plain(table: list[dict[str, str]]) -> set[tuple[tuple[str, str], ...]]:
    """Rows without what a clock or the system decides."""
    return {tuple((k, v) for k, v in row.items() if k not in ("seconds", "peak_mb")) for row in table}


def run(config: bench.BenchSettings, out: Path, jobs: int = 1) -> dict[str, object]:
    return bench.run(config, out, jobs=jobs, device=CPU, command="test")


def test_a_run_fills_every_cell_and_goes_on_where_it_stopped(quick: Make, tmp_path: Path) -> None:
    config = quick()
    result = run(config, tmp_path)
    table = rows(tmp_path)
    assert len(table) == 2 * 2 * 2 * 2  # pairs, methods, protocols, seeds
    assert {row["classes"] for row in table} == {"anger|neutral"}
    assert {row["setting"] for row in table} == {"central"}
    assert "tiny → other" in (tmp_path / "summary.md").read_text()
    assert run(config, tmp_path)["computed"] == 0

    lines = (tmp_path / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(lines[:-3]) + lines[-3][:25])  # a crash within a line
    again = run(config, tmp_path, jobs=2)
    assert again["computed"] == 1
    assert plain(rows(tmp_path)) == plain(table)
    assert again["uar"] == result["uar"]


def test_the_scores_are_those_of_the_confusion_matrix(quick: Make, tmp_path: Path) -> None:
    run(quick(pairs="tiny:other", methods="source", seeds=1, protocol="transductive"), tmp_path)
    (row,) = rows(tmp_path)
    matrix = torch.tensor(json.loads((tmp_path / "confusions.jsonl").read_text())["matrix"])
    assert int(matrix.sum()) == 18  # nine of each shared emotion
    recalls = matrix.diagonal() / matrix.sum(1)
    assert float(row["uar"]) == pytest.approx(float(recalls.mean()), abs=1e-5)
    assert float(row["war"]) == pytest.approx(float(matrix.diagonal().sum() / matrix.sum()), abs=1e-5)
    assert metrics.uar(torch.tensor([0, 1]), torch.tensor([0, 0])) == 0.5


def test_every_target_set_and_kind_of_row(quick: Make, tmp_path: Path) -> None:
    methods = "source,aad,guard,supervised,coral"
    config = quick(pairs="tiny:other", methods=methods, target_set=list(TARGET_SETS), seeds=1, reference="aad")
    run(config, tmp_path)
    table = {(row["target_set"], row["protocol"], row["method"]): row for row in rows(tmp_path)}
    found = {target_set: {key[1:] for key in table if key[0] == target_set} for target_set in TARGET_SETS}
    both = {(p, m) for p in ("transductive", "inductive") for m in ("source", "aad", "guard", "coral")}
    oracle = {("transductive", "supervised")}
    for target_set in ("all", "dirichlet", "neutral70", "two_emotions", "unfiltered", "telephone"):
        assert found[target_set] == both | oracle
    assert found["small"] == {(p, m) for p, m in both if p == "transductive"}
    assert found["nonspeech"] == {("transductive", "guard")}

    assert table["nonspeech", "transductive", "guard"]["uar"] == ""
    for (target_set, _, method), row in table.items():
        chosen = row["chosen_by_guard"].split("|")
        assert (method == "guard") is (chosen != [""])
        assert method != "guard" or set(chosen) <= set(CANDIDATES)
        assert bool(row["unknown_auroc"]) is (target_set == "unfiltered")
    assert len(table["all", "inductive", "guard"]["chosen_by_guard"].split("|")) == 2  # folds
    assert len(table["small", "transductive", "guard"]["chosen_by_guard"].split("|")) == 3  # a site for each speaker
    telephone, clean = table["telephone", "transductive", "source"], table["all", "transductive", "source"]
    assert telephone["ece"] != clean["ece"]
    text = (tmp_path / "summary.md").read_text()
    assert "| supervised (oracle) |" in text
    assert "always aad" in text


def test_several_sources(quick: Make, speech: Path, second: Path, tmp_path: Path) -> None:
    corpora = {"tiny": str(speech), "other": str(second), "again": str(second)}
    config = quick(
        corpora=corpora, pairs="leave_one_out,tiny:other", methods="source", protocol="transductive", seeds=1
    )
    result = run(config, tmp_path)
    assert {(row["source"], row["target"]) for row in rows(tmp_path)} == {
        *(("other+again", "tiny"), ("tiny+again", "other"), ("tiny+other", "again"), ("tiny", "other"))
    }
    assert "several/functionals/all/transductive/auto/source" in result["uar"]  # type: ignore[operator]


def test_a_pretrained_encoder(quick: Make, tiny_encoder: Callable[[str], Pretrained], tmp_path: Path) -> None:
    own = tiny_encoder("wavlm")
    model = {"encoder": "wavlm", "size": "tiny", "weights": own.weights, "hidden": 8, "bottleneck": 4}
    config = quick(model=model, features="pretrained", pairs="tiny:other", methods="source,shot,logreg", seeds=1)
    run(config, tmp_path)
    table = rows(tmp_path)
    assert {(row["encoder"], row["features"]) for row in table} == {("wavlm", "pretrained")}
    assert len(table) == 3 * 2


def test_what_cannot_be_computed_is_left_out_and_told(quick: Make, speech: Path, second: Path, tmp_path: Path) -> None:
    silent = tmp_path / "nameless"  # emotions by folder, no speakers
    for emotion in ("anger", "neutral"):
        (silent / emotion).mkdir(parents=True)
    with (second / "manifest.csv").open(newline="") as table:
        for number, entry in enumerate(csv.DictReader(table)):
            if entry["emotion"] != "fear":
                shutil.copy(second / entry["path"], silent / entry["emotion"] / f"{number}.wav")
    config = quick(corpora={"tiny": str(speech), "blank": str(silent)}, methods="source,supervised", seeds=1)
    result = run(config, tmp_path / "out")
    assert {(row["target"], row["protocol"], row["method"]) for row in rows(tmp_path / "out")} == {
        ("blank", "transductive", "source"),
        *(
            ("tiny", p, m)
            for p, m in (("transductive", "source"), ("inductive", "source"), ("transductive", "supervised"))
        ),
    }
    assert len(result["left_out"]) == 2  # type: ignore[arg-type]
    assert "- blank, inductive: the speakers are not known" in (tmp_path / "out" / "summary.md").read_text()


def test_a_method_that_fails_is_left_out_and_tried_again(quick: Make, tmp_path: Path) -> None:
    small = {"pairs": "tiny:other", "methods": "source,aad", "protocol": "transductive", "seeds": 1}
    wild = quick(**small, schedule={"epochs": 3, "learning_rate": 1e30})
    for _ in range(2):
        result = run(wild, tmp_path)
        assert [row["method"] for row in rows(tmp_path)] == ["source"]
        (told,) = result["left_out"]  # type: ignore[misc]
        assert told.startswith(
            "tiny → other, all, transductive, aad, functionals, normalisation auto, seed 0: The adaptation diverged"
        )
        assert result["computed"] == 1


def test_a_sample_with_too_few_speakers_for_folds_is_left_out(quick: Make, speech: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"  # one of its two speakers is never neutral or angry, so two_emotions holds one speaker
    shutil.copytree(speech, lone)
    with (lone / "manifest.csv").open(newline="") as table:
        reader = csv.DictReader(table)
        fields, entries = list(reader.fieldnames or ()), list(reader)
    first, second = sorted({entry["speaker"] for entry in entries})[:2]
    kept = [e for e in entries if e["speaker"] == first or (e["speaker"] == second and e["emotion"] == "sadness")]
    with (lone / "manifest.csv").open("w", newline="") as table:
        writer = csv.DictWriter(table, fields)
        writer.writeheader()
        writer.writerows(kept)
    corpora = {"tiny": str(speech), "lone": str(lone)}
    config = quick(corpora=corpora, pairs="tiny:lone", methods="source,logreg", target_set="two_emotions,all", seeds=1)
    result = run(config, tmp_path / "out")
    assert {(row["target_set"], row["protocol"]) for row in rows(tmp_path / "out")} == {
        *(("two_emotions", "transductive"), ("all", "transductive"), ("all", "inductive"))
    }
    assert all("Speaker folds need" in told for told in result["left_out"])  # type: ignore[attr-defined]


def test_other_settings_are_refused_in_the_same_folder(quick: Make, tmp_path: Path) -> None:
    small = {"pairs": "tiny:other", "methods": "source", "protocol": "transductive", "seeds": 1}
    run(quick(**small), tmp_path)
    with pytest.raises(OutputError, match="other settings"):
        run(quick(**small, folds=3), tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(OutputError, match="damaged"):
        run(quick(**small), tmp_path)


def test_a_corpus_that_cannot_be_read_is_named(quick: Make, speech: Path, tmp_path: Path) -> None:
    config = quick(corpora={"tiny": str(speech), "lost": str(tmp_path / "nowhere")})
    with pytest.raises(Exception, match="The corpus lost cannot be used"):
        run(config, tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"methods": "ecann"},
        {"pairs": "tiny:nowhere"},
        {"pairs": "tiny"},
        {"protocol": "conductive"},
        {"target_set": "some"},
        {"target_set": "nonspeech"},
        {"features": "magic"},
        {"normalisation": "none"},
        {"options": {"ecan": {"colour": 1}}},
        {"options": {"ecann": {}}},
        {"options": {"guard": {"colour": 1}}},
        {"options": {"dann": {"colour": 1}}},
        {"options": {"supervised": {"colour": 1}}},
    ],
)
def test_an_unknown_name_is_refused_before_any_work(quick: Make, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        bench.check(quick(**change))
    assert error.value.hint


def test_seeds_and_lists_from_the_command_line(quick: Make) -> None:
    assert quick(seeds=3).seeds == (0, 1, 2)
    assert quick(seeds=[4, 9]).seeds == (4, 9)
    assert quick(methods="source, ecan").methods == ("source", "ecan")
