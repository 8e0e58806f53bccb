"""Multinomial logistic regression: the plain peer that every bundle of vector features publishes as well."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedser.models import LinearClassifier, fit_logistic
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
    return fit_logistic(*check(x, y, classes), classes, c)
