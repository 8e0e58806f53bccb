"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

CORPORA = ("emodb", "emovo", "ravdess", "urdu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's own feature cache; the tests of one run share one."""
    monkeypatch.setenv("FEDSER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def corpora() -> Path:
    """The folder with the real corpora, named by FEDSER_CORPORA."""
    named = os.environ.get("FEDSER_CORPORA")
    if not named:
        pytest.skip("FEDSER_CORPORA is not set: it names a folder with emodb, emovo, ravdess and urdu")
    missing = [name for name in CORPORA if not (Path(named) / name).is_dir()]
    if missing:
        pytest.skip(f"FEDSER_CORPORA lacks {', '.join(missing)}")
    return Path(named)
