"""A simulation end to end on small recordings: what is compared, what it writes, what must not matter."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from fedser.adapt import Schedule
from fedser.audio.normalise import SiteNormaliser
from fedser.config import validate
from fedser.errors import ConfigError, FedserError, TooLittleDataError
from fedser.evaluate import world as worlds
from fedser.evaluate.contenders import run_seed
from fedser.evaluate.simulate import run
from fedser.evaluate.simulation_settings import CONTENDERS, SimulationSettings

CPU = torch.device("cpu")
PITCH = {"anger": 260.0, "sadness": 120.0, "neutral": 180.0, "boredom": 90.0}


def write_corpus(folder: Path, speakers: int, emotions: tuple[str, ...], each: int, seed: int) -> Path:
    """Buzzing tones whose pitch and loudness depend on the emotion, and a little on the speaker."""
    random = np.random.default_rng(seed)
    rows = []
    moments = np.arange(8000) / 16000
    for speaker in range(speakers):
        for emotion in emotions:
            for number in range(each):
                pitch = PITCH[emotion] * (1 + 0.05 * speaker) * random.normal(1, 0.03)
                wave = np.tanh(3 * np.sin(2 * np.pi * pitch * moments)) * np.linspace(1, 0.2, len(moments))
                wave += 0.02 * random.standard_normal(len(moments))
                path = folder / f"{speaker}-{emotion}-{number}.wav"
                folder.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, 0.3 * wave, 16000)
                rows.append({"path": path.name, "speaker": f"s{speaker}", "emotion": emotion})
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "speaker", "emotion"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("simulated")
    return {
        "home": write_corpus(base / "home", 3, ("anger", "neutral", "sadness"), 4, 1),
        "away": write_corpus(base / "away", 4, ("anger", "boredom", "neutral", "sadness"), 3, 2),
    }


def settings_for(corpora: dict[str, Path], **changes: Any) -> SimulationSettings:
    values: dict[str, Any] = {
        "source": {
            "corpora": {"home": corpora["home"]},
            "model": {"hidden": 16, "depth": 1, "bottleneck": 8},
            "train": {"epochs": 4, "folds": 1},
        },
        "target": {"corpora": {"away": corpora["away"]}},
        "partition": {"by": "speaker", "speakers": 2},
        "schedule": {"steps": 4, "batch_size": 16},
        "federation": {"rounds": 2, "personal": 0.5},
        "seeds": [0, 1],
    }
    for name, change in changes.items():
        inner = values.get(name)
        values[name] = {**inner, **change} if isinstance(inner, dict) and isinstance(change, dict) else change
    return validate(SimulationSettings, values)


@pytest.fixture(scope="module")
def finished(corpora: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDSER_CACHE", str(tmp_path_factory.mktemp("cache")))
        out = tmp_path_factory.mktemp("run")
        return run(settings_for(corpora), out, command="fedser simulate …"), out


def test_all_contenders_and_their_summary(finished: tuple[dict[str, Any], Path]) -> None:
    results, out = finished
    assert tuple(results["settings"]) == CONTENDERS
    assert set(results["uar"]) == set(CONTENDERS)
    for name, entry in results["settings"].items():
        values = [row["uar"] for row in entry["seeds"]]
        assert entry["mean"]["uar"] == pytest.approx(np.mean(values))
        assert entry["std"]["uar"] == pytest.approx(np.std(values, ddof=1))
        assert results["uar"][name] == pytest.approx(100 * entry["mean"]["uar"], abs=0.005)
        assert np.sum(entry["confusion"]) == 2 * 36  # two seeds, all utterances that are scored
        for row in entry["seeds"]:
            assert row["worst_site_uar"] == min(row["sites"].values()) <= row["mean_site_uar"]
    assert [entry["name"] for entry in results["sites"]] == ["site-1", "site-2"]
    assert results["left_out"] == {"boredom": 12}
    assert [point["round"] for point in results["curves"]["federated"]] == [0, 1, 2, 0, 1, 2]
    assert results["refusals"] == []
    assert [len(panel["points"]) for panel in results["embeddings"]] == [36, 36]
    assert Path(results["report"]).is_file()
    assert json.loads((out / "results.json").read_text())["uar"] == results["uar"]


def test_tables_agree_with_the_json(finished: tuple[dict[str, Any], Path]) -> None:
    results, out = finished
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(CONTENDERS)
    for row in rows:
        entry = results["settings"][row["setting"]]["seeds"][int(row["seed"])]
        assert float(row["uar"]) == pytest.approx(entry["uar"], abs=1e-6)
    with (out / "predictions.csv").open() as file:
        predictions = [row for row in csv.DictReader(file) if (row["setting"], row["seed"]) == ("alone", "1")]
    hits: dict[str, list[bool]] = {}
    for row in predictions:
        hits.setdefault(row["emotion"], []).append(row["emotion"] == row["predicted"])
    by_hand = np.mean([np.mean(own) for own in hits.values()])
    assert by_hand == pytest.approx(results["settings"]["alone"]["seeds"][1]["uar"])


def test_without_last_steps_the_personal_models_are_the_federations(corpora: dict[str, Path], tmp_path: Path) -> None:
    def ran(contenders: str) -> dict[str, Any]:
        given = settings_for(corpora, federation={"rounds": 2, "personal": 0.0}, contenders=contenders, seeds=[0])
        return run(given, tmp_path / contenders, command="fedser simulate …")

    both, apart = ran("federated,personal"), ran("personal")
    federated, personal = (both["settings"][name]["seeds"] for name in ("federated", "personal"))
    assert personal == federated == apart["settings"]["personal"]["seeds"]
    assert both["curves"]["personal"] == apart["curves"]["personal"]


def test_the_number_of_jobs_does_not_matter(
    corpora: dict[str, Path], finished: tuple[dict[str, Any], Path], tmp_path: Path
) -> None:
    again = run(settings_for(corpora), tmp_path, jobs=2)
    assert again["settings"] == finished[0]["settings"]
    assert again["curves"] == finished[0]["curves"]


def test_an_interrupt_waits_for_no_seed(corpora: dict[str, Path], tmp_path: Path) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    long = settings_for(corpora, schedule={"steps": 50_000, "batch_size": 16}, contenders=["alone"], seeds=4)
    before = signal.signal(signal.SIGALRM, interrupt)
    begin = time.monotonic()
    signal.alarm(5)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(long, tmp_path, jobs=2)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 25
    assert multiprocessing.active_children() == []
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_one_site_changes_nothing_of_another_sites_features(corpora: dict[str, Path]) -> None:
    settings = settings_for(corpora)
    world = worlds.build(settings, CPU)
    source = worlds.source_model(settings, world, 0, CPU)
    before = worlds.build_sites(settings, world, source)
    moved = world.target.raw.clone()
    moved[list(world.sites[1].index)] *= 3.0
    changed = worlds.replace(world, target=worlds.replace(world.target, raw=moved))
    after = worlds.build_sites(settings, changed, source)
    assert torch.equal(after[0].data.x, before[0].data.x)
    own = world.target.subset(world.sites[0].index)
    rule = worlds.NormalisationSettings()
    expected = SiteNormaliser.fit(own.raw, own.speakers, rule).transform(own.raw, own.speakers)
    assert torch.equal(before[0].data.x, expected)


def test_labels_reach_no_contender(corpora: dict[str, Path]) -> None:
    """With the target's labels shuffled, all predictions are the same."""
    settings = settings_for(corpora, seeds=[0])
    world = worlds.build(settings, CPU)
    shuffled = list(world.target.emotions)
    np.random.default_rng(0).shuffle(shuffled)
    utterances = tuple(worlds.replace(u, emotion=e) for u, e in zip(world.target.utterances, shuffled, strict=True))
    lying = worlds.replace(world, target=worlds.replace(world.target, utterances=utterances))
    honest, fooled = (run_seed(settings, each, 0, CPU).probabilities for each in (world, lying))
    assert all(torch.equal(honest[name], fooled[name]) for name in CONTENDERS)


def test_local_steps_come_from_the_mean_site() -> None:
    class Site:
        def __init__(self, count: int) -> None:
            self.index = range(count)

    assert worlds.local_steps(Schedule(epochs=3, batch_size=16), [Site(40), Site(24)]) == 3 * 2
    assert worlds.local_steps(Schedule(steps=7), [Site(1)]) == 7


def test_unknown_emotions_are_adapted_on_but_not_scored(corpora: dict[str, Path], tmp_path: Path) -> None:
    changed = settings_for(corpora, unknown_emotions="adapt", contenders=["source", "alone"], seeds=[0])
    results = run(changed, tmp_path)
    assert sum(site["utterances"] for site in results["sites"]) == 48
    assert np.sum(results["settings"]["alone"]["confusion"]) == 36
    assert results["left_out"] == {}


def test_a_site_whose_policy_refuses_keeps_the_source_model(corpora: dict[str, Path], tmp_path: Path) -> None:
    one_small = settings_for(
        corpora,
        partition={"by": "speaker", "speakers": 3, "smallest": 1},
        policy={"utterances_min": 20},
        contenders=["source", "federated"],
        seeds=[0],
    )
    results = run(one_small, tmp_path)
    small = min(results["sites"], key=lambda site: site["utterances"])["name"]
    assert {refusal["site"] for refusal in results["refusals"]} == {small}
    assert {refusal["code"] for refusal in results["refusals"]} == {"TOO_LITTLE_DATA"}
    source, federated = (results["settings"][name]["seeds"][0]["sites"][small] for name in ("source", "federated"))
    assert source == federated


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"classes": ["anger", "neutral"]}, ConfigError, "masks a bundle"),
        ({"source": {"bundle": "x.safetensors"}}, ConfigError, "both corpora and a bundle"),
        ({"method": {"name": "bn"}}, ConfigError, "trains nothing"),
        ({"policy": {"leave": "none"}}, ConfigError, "Nothing would travel"),
        ({"target": {"corpora": {"away": "nowhere"}}}, FedserError, "nowhere"),
    ],
)
def test_what_cannot_be_simulated_is_said(
    corpora: dict[str, Path], tmp_path: Path, changes: dict[str, Any], error: type[FedserError], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(settings_for(corpora, **changes), tmp_path)


def test_one_shared_emotion_is_too_little(corpora: dict[str, Path], tmp_path: Path) -> None:
    lone = write_corpus(tmp_path / "lone", 2, ("anger",), 3, 3)
    with pytest.raises(TooLittleDataError, match="share 1 emotions"):
        run(settings_for(corpora, target={"corpora": {"lone": lone}}), tmp_path / "out")
