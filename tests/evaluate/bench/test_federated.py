from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedser.config import validate
from fedser.errors import ConfigError, QuorumError
from fedser.evaluate import contenders, world
from fedser.evaluate.bench import federated
from fedser.evaluate.bench.federated_settings import FederatedBenchSettings, check, partition_of, simulation
from fedser.evaluate.bench.federated_summary import summarise
from fedser.evaluate.bench.pairs import Pair
from fedser.evaluate.bench.scores import scores
from fedser.evaluate.bench.store import COLUMNS, key_of
from fedser.pretrained import Pretrained

CPU = torch.device("cpu")
Make = Callable[..., FederatedBenchSettings]


@pytest.fixture
def quick(speech: Path, second: Path) -> Make:
    """Settings of federations of seconds, with changes."""

    def make(**changes: Any) -> FederatedBenchSettings:
        values = {
            "corpora": {"tiny": str(speech), "other": str(second)},
            "pairs": "other:tiny",
            "partition": "speaker2,dirichlet0.3",
            "setting": "source,alone,personal,pooled,newcomer",
            "seeds": 1,
            "sites": 2,
            "resamples": 100,
            "schedule": {"steps": 4, "batch_size": 16},
            "federation": {"rounds": 2},
            "train": {"epochs": 3, "early_stop": False},
            "model": {"hidden": 16, "bottleneck": 8},
        }
        return validate(FederatedBenchSettings, values | changes)

    return make


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_a_run_fills_every_cell_as_the_simulation_does(quick: Make, tmp_path: Path) -> None:
    config = quick()
    result = federated.run(config, tmp_path, jobs=1, device=CPU, command="test")
    table = rows(tmp_path)
    assert {(row["partition"], row["setting"]) for row in table} == {
        (partition, setting) for partition in config.partition for setting in config.setting
    }
    assert {row["target_set"] for row in table} == {"all"}
    own = simulation(config, Pair(("other",), "tiny"), "functionals", "auto", "speaker2", "ecan", 0)
    place = world.build(own, CPU)
    expected = contenders.run_seed(own, place, 0, CPU).probabilities
    for row in table:
        if row["partition"] == "speaker2":
            assert float(row["uar"]) == scores(expected[row["setting"]], world.labels_of(place))["uar"]
    assert "| other → tiny | speaker2 |" in (tmp_path / "summary.md").read_text()
    assert "functionals/auto/ecan/all/personal" in result["uar"]

    lines = (tmp_path / "results.csv").read_text().splitlines(keepends=True)
    (tmp_path / "results.csv").write_text("".join(lines[:-1]))  # a crash lost one setting
    again = federated.run(config, tmp_path, jobs=1, device=CPU, command="test")
    assert again["computed"] == 1
    assert again["uar"] == result["uar"]
    assert len(rows(tmp_path)) == len(table)


def test_a_federation_that_no_site_joins_is_told(quick: Make, tmp_path: Path) -> None:
    refused = quick(schedule={"steps": 4, "batch_size": 2}, setting="source,personal", partition="speaker2")
    with pytest.raises(QuorumError, match="No federation took place: other → tiny, speaker2"):
        federated.run(refused, tmp_path, jobs=1, device=CPU, command="test")
    federated.run(refused.model_copy(update={"setting": ("source",)}), tmp_path, jobs=1, device=CPU, command="test")
    again = federated.run(refused, tmp_path, jobs=1, device=CPU, command="test")
    assert len(again["left_out"]) == 1
    assert [row["setting"] for row in rows(tmp_path)] == ["source"]


@pytest.mark.parametrize(
    "change",
    [
        {"partition": "speaker0"},
        {"partition": "dirichlet"},
        {"partition": "dirichlet0.0"},
        {"setting": "central"},
        {"methods": "logreg"},
        {"methods": "guard"},
        {"options": {"ecan": {"colour": 1}}},
        {"pairs": "tiny"},
        {"normalisation": "none"},
    ],
)
def test_what_cannot_be_is_refused_before_any_work(quick: Make, change: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as error:
        check(quick(**change))
    assert error.value.hint


def test_partitions_by_name() -> None:
    assert (partition_of("speaker2", 5).by, partition_of("speaker2", 5).speakers) == ("speaker", 2)
    drawn = partition_of("dirichlet0.3", 7)
    assert (drawn.by, drawn.sites, drawn.alpha) == ("dirichlet", 7, 0.3)


def test_a_pretrained_encoder_brings_its_features(quick: Make, tiny_encoder: Callable[[str], Pretrained]) -> None:
    own = tiny_encoder("hubert")
    config = quick(model={"encoder": "hubert", "size": "tiny", "weights": own.weights}, features="pretrained")
    one = simulation(config, check(config)[0], "pretrained", "auto", "speaker1", "ecan", 0)
    assert one.source.features.pretrained == own
    assert one.source.model.weights == own.weights


def row(setting: str, partition: str, seed: int, uar: float) -> dict[str, str]:
    named = {"source": "a", "target": "b", "method": "ecan", "features": "functionals", "normalisation": "auto"}
    blank = dict.fromkeys(COLUMNS, "")
    return blank | named | {"setting": setting, "partition": partition, "seed": str(seed), "uar": str(uar)}


def test_the_tables_by_hand() -> None:
    table = [
        row(setting, partition, seed, uar + (0.1 if partition == "speaker2" else 0.0))
        for partition in ("speaker1", "speaker2")
        for seed in (0, 1)
        for setting, uar in (("source", 0.4), ("alone", 0.5), ("personal", 0.6), ("pooled", 0.57))
    ]
    counts = {key_of(own): {"s": [(0, 0, 6), (0, 1, 4)]} for own in table}
    summary = summarise(table, counts, resamples=100)
    assert summary.uar["functionals/auto/ecan/all/personal"] == 65.0
    assert "| speaker1 | 40.0 ± 0.0 | 50.0 ± 0.0 | **60.0 ± 0.0** | 57.0 ± 0.0 |" in summary.markdown
    assert "| a → b | all | 45.0 ± 0.0 | 55.0 ± 0.0 | **65.0 ± 0.0** | 62.0 ± 0.0 | +10.0 | +3.0 |" in summary.markdown
    assert "| all | +0.0 [+0.0, +0.0], p 1.000 | +0.0 [+0.0, +0.0], p 1.000 | +3.0 |" in summary.markdown
