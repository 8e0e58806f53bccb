"""Multinomial logistic regression: the plain peer that every bundle of vector features publishes as well."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.models import LinearClassifier
from fedser.train.checks import check


def fit_linear(x: Tensor, y: Tensor, classes: Sequence[str], *, c: float = 0.01) -> LinearClassifier:
    """Fit logistic regression with balanced class weights.

    Args:
        x: normalised features [N, D].
        y: class numbers [N]; -1 is left out.
        classes: emotion names.
        c: inverse strength of the L2 penalty.

    Raises:
        TooLittleDataError: fewer than two classes have utterances.
    """
    return fit_checked(*check(x, y, classes), classes, c=c)


def fit_checked(x: Tensor, y: Tensor, classes: Sequence[str], *, c: float = 0.01) -> LinearClassifier:
    """The same for labelled utterances alone, two classes or more, however few there are of each."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at this penalty the last digits change nothing
        fitted = LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(x.numpy(), y.numpy())
    weight = torch.zeros(len(classes), x.shape[1])
    bias = torch.full((len(classes),), -1e3)  # a class without utterances is never answered
    found = torch.from_numpy(fitted.classes_)
    rows, offsets = torch.from_numpy(fitted.coef_).float(), torch.from_numpy(fitted.intercept_).float()
    if len(found) == 2:  # scikit-learn keeps one row for the log-odds of the second class
        rows, offsets = torch.cat([-rows / 2, rows / 2]), torch.cat([-offsets / 2, offsets / 2])
    weight[found], bias[found] = rows, offsets
    model = LinearClassifier(x.shape[1], classes)
    model.load_state_dict({"weight": weight, "bias": bias})
    return model.eval()
