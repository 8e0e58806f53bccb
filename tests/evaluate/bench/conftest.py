"""A second small corpus, and the settings of quick benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedser.config import validate
from fedser.evaluate.bench import BenchSettings

Make = Callable[..., BenchSettings]


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three speakers, three emotions of which two are those of ``speech``."""
    from fedser.demo.corpus import CorpusPlan, write_corpus

    folder = tmp_path_factory.mktemp("second") / "other"
    plan = CorpusPlan("other", 3, 27, emotions=("anger", "neutral", "fear"), seconds=(0.5, 0.7), first=50)
    write_corpus(folder, plan, seed=6)
    return folder


@pytest.fixture
def quick(speech: Path, second: Path) -> Make:
    """Settings of a benchmark of seconds, with changes."""

    def make(**changes: Any) -> BenchSettings:
        values = {
            "corpora": {"tiny": str(speech), "other": str(second)},
            "methods": "source,ecan",
            "protocol": "transductive,inductive",
            "seeds": 2,
            "folds": 2,
            "resamples": 100,
            "schedule": {"epochs": 2},
            "options": {"fedser": {"student_steps": 10}, "dine": {"steps": 10}},
            "train": {"epochs": 3, "early_stop": False},
            "model": {"hidden": 16, "bottleneck": 8},
        }
        return validate(BenchSettings, values | changes)

    return make
