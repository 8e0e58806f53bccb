"""Fitting multinomial logistic regression (scikit-learn) and keeping it as plain tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.models.linear import LinearClassifier

NEVER = -1e3  # the bias of a class without utterances: it is never answered


def fit_logistic(x: Tensor, y: Tensor, classes: Sequence[str], c: float = 0.01) -> LinearClassifier:
    """Logistic regression with balanced class weights.

    Args:
        x: normalised features [N, D].
        y: class numbers, int64 [N], of at least two different classes.
        classes: emotion names.
        c: inverse strength of the L2 penalty.

    Returns:
        A classifier on the CPU whose probabilities are scikit-learn's.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import: only where it is needed
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at this penalty the last digits change nothing
        model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000)
        model.fit(x.cpu().numpy(), y.cpu().numpy())
    rows, offsets = torch.from_numpy(model.coef_).float(), torch.from_numpy(model.intercept_).float()
    if len(model.classes_) == 2:  # scikit-learn keeps one row, the log-odds of the second class
        rows, offsets = torch.cat([-rows / 2, rows / 2]), torch.cat([-offsets / 2, offsets / 2])
    found = torch.from_numpy(model.classes_)
    weight, bias = torch.zeros(len(classes), x.shape[1]), torch.full((len(classes),), NEVER)
    weight[found], bias[found] = rows, offsets
    linear = LinearClassifier(x.shape[1], classes)
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear.eval()
