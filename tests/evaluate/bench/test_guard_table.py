from __future__ import annotations

import pytest

from fedser.evaluate.bench.guard_table import harmful, promise


def test_promises_by_hand() -> None:
    runs = [
        {"source": 50.0, "guard": 55.0, "aad": 60.0},  # half of what there is
        {"source": 50.0, "guard": 50.0, "aad": 40.0},  # nothing to gain, and the guard kept out of harm
        {"source": 50.0, "guard": 49.0, "aad": 49.0},  # a point below is no harm yet
        {"source": 50.0, "guard": 48.0, "aad": 48.0},
    ]
    own = promise(runs, "guard")
    assert (own.runs, own.uar, own.safe, own.worst) == (4, 50.5, 0.75, -2.0)
    assert own.kept == pytest.approx((5 + 0 - 1 - 2) / 10)
    assert promise(runs, "aad").kept == pytest.approx((10 - 10 - 1 - 2) / 10)
    assert promise(runs, "source").kept == 0.0
    assert promise(runs[1:2], "guard").kept is None


def test_the_harm_set() -> None:
    assert not harmful({"target_set": "all", "normalisation": "auto"})
    assert harmful({"target_set": "all", "normalisation": "corpus"})
    assert harmful({"target_set": "small", "normalisation": "auto"})
