from __future__ import annotations

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from fedser.compute import generator
from fedser.errors import TooLittleDataError
from fedser.train import fit_linear


@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_those_of_scikit_learn(classes: int) -> None:
    draw = generator("linear", classes)
    x, y = torch.randn(60, 5, generator=draw), torch.randint(classes, (60,), generator=draw)
    x[:, 0] += y
    model = fit_linear(x, y, [f"emotion {number}" for number in range(classes)])
    oracle = LogisticRegression(C=0.01, class_weight="balanced", max_iter=1000).fit(x.numpy(), y.numpy())
    expected = torch.from_numpy(oracle.predict_proba(x.numpy())).float()
    torch.testing.assert_close(model(x).softmax(1).detach(), expected, atol=1e-4, rtol=1e-3)


def test_unlabelled_utterances_are_left_out_and_an_absent_class_is_never_answered() -> None:
    draw = generator("absent")
    x, y = torch.randn(40, 3, generator=draw), torch.randint(2, (40,), generator=draw) * 2
    labelled = fit_linear(x, y, ["a", "b", "c"])
    y_more = torch.cat([y, torch.full((9,), -1)])
    more = fit_linear(torch.cat([x, 100 * torch.randn(9, 3, generator=draw)]), y_more, ["a", "b", "c"])
    torch.testing.assert_close(labelled.weight, more.weight)
    assert float(labelled(x).softmax(1)[:, 1].detach().max()) == 0.0


def test_one_class_is_refused() -> None:
    with pytest.raises(TooLittleDataError, match="at least two emotions"):
        fit_linear(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), ["a", "b"])
