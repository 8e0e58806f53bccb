from __future__ import annotations

import statistics

from fedser.evaluate.summary import summarise


def row(source: str, target: str, method: str, seed: int, uar: float) -> dict[str, str]:
    return {
        "source": source,
        "target": target,
        "method": method,
        "features": "functionals",
        "normalisation": "auto",
        "protocol": "transductive",
        "target_set": "all",
        "seed": str(seed),
        "uar": str(uar),
        "war": str(uar / 2),
        "ece": "0.1",
        "seconds": "1.0",
    }


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
    assert f"| functionals | all | transductive | source | **53.0 ± {spread:.1f}** |" in summary.markdown
    assert "| a → b | 45.0 ± 7.1 | **71.0 ± 1.4** |" in summary.markdown
    assert "| a → b | 22.5 ± 3.5 | **35.5 ± 0.7** |" in summary.markdown  # WAR


def test_a_seed_that_lacks_a_pair_does_not_count_in_the_mean() -> None:
    rows = [row("a", "b", "ecan", 0, 0.5), row("b", "a", "ecan", 0, 0.7), row("a", "b", "ecan", 1, 0.9)]
    assert summarise(rows).uar["functionals/all/transductive/auto/ecan"] == 60.0
