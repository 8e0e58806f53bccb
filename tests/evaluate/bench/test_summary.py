from __future__ import annotations

import statistics

from fedser.evaluate.bench.store import key_of
from fedser.evaluate.bench.summary import summarise


def row(source: str, target: str, method: str, seed: int, uar: float, **more: str) -> dict[str, str]:
    return {
        "source": source,
        "target": target,
        "method": method,
        "setting": "central",
        "features": "functionals",
        "normalisation": "auto",
        "protocol": "transductive",
        "target_set": "all",
        "partition": "",
        "seed": str(seed),
        "uar": str(uar),
        "war": str(uar / 2),
        "ece": "0.1",
        "seconds": "1.0",
        "unknown_auroc": "",
        "chosen_by_guard": "",
    } | more


def test_means_and_spreads_by_hand() -> None:
    rows = [
        row("a", "b", "source", 0, 0.40),
        row("a", "b", "source", 1, 0.50),
        row("b", "a", "source", 0, 0.60),
        row("b", "a", "source", 1, 0.62),
        row("a", "b", "ecan", 0, 0.70),
        row("a", "b", "ecan", 1, 0.72),
        row("b", "a", "ecan", 0, 0.30),
        row("b", "a", "ecan", 1, 0.32),
    ]
    summary = summarise(rows)
    assert summary.uar["functionals/all/transductive/auto/source"] == 53.0
    assert summary.uar["functionals/all/transductive/auto/ecan"] == 51.0
    spread = statistics.stdev([50.0, 56.0])
    assert f"| functionals | all | transductive | source | 53.0 ± {spread:.1f} |" in summary.markdown
    assert "| a → b | 45.0 ± 7.1 | **71.0 ± 1.4** |" in summary.markdown
    assert "| a → b | 22.5 ± 3.5 | **35.5 ± 0.7** |" in summary.markdown  # WAR


def test_a_seed_that_lacks_a_pair_does_not_count_in_the_mean() -> None:
    rows = [row("a", "b", "ecan", 0, 0.5), row("b", "a", "ecan", 0, 0.7), row("a", "b", "ecan", 1, 0.9)]
    assert summarise(rows).uar["functionals/all/transductive/auto/ecan"] == 60.0


def test_a_headline_shows_both_protocols_and_tests_the_reference() -> None:
    rows = [
        row("a", "b", method, seed, uar, protocol=protocol)
        for protocol, lift in (("inductive", 0.0), ("transductive", 0.1))
        for method, uar in (("ecan", 0.7 + lift), ("source", 0.5 + lift), ("supervised", 0.9))
        for seed in (0, 1)
    ]
    counts = {key_of(own): {"s": [(0, 0, 7), (0, 1, 3)]} for own in rows}
    text = summarise(rows, counts, reference="ecan", resamples=100).markdown
    assert "| method | transductive | ecan − method | p (Holm) | inductive | ecan − method | p (Holm) |" in text
    assert "| ecan | **80.0 ± 0.0** |  |  | **70.0 ± 0.0** |  |  |" in text
    assert "| source | 60.0 ± 0.0 | +0.0 [+0.0, +0.0] | 1.000 | 50.0 ± 0.0 |" in text
    assert "| supervised (oracle) | 90.0 ± 0.0 |  |  |" in text  # neither bold nor tested
    assert "ecan − method" not in summarise(rows, counts, reference="fedser").markdown


def test_several_sources_stand_in_tables_of_their_own() -> None:
    rows = [row("a", "b", "source", 0, 0.4), row("a+c", "b", "source", 0, 0.6)]
    summary = summarise(rows)
    assert summary.uar["functionals/all/transductive/auto/source"] == 40.0
    assert summary.uar["several/functionals/all/transductive/auto/source"] == 60.0
    assert "## Headlines, several source corpora" in summary.markdown


def test_what_was_left_out_is_told_and_rows_without_uar_do_no_harm() -> None:
    rows = [
        row("a", "b", "source", 0, 0.4),
        row("a", "b", "guard", 0, 0.4, chosen_by_guard="source|aad", unknown_auroc="0.75"),
        row("a", "b", "guard", 0, 0.4, target_set="nonspeech", chosen_by_guard="source") | {"uar": "", "war": ""},
    ]
    text = summarise(rows, left_out=["b, inductive: the speakers are not known"]).markdown
    assert "- b, inductive: the speakers are not known" in text
    assert "| AUROC of unknown | – | 0.750 |" in text
    assert "| functionals | nonspeech | auto | transductive | 100 | 0 | 0 | 0 |" in text
    assert "| functionals | all | auto | transductive | 50 | 0 | 0 | 50 |" in text
