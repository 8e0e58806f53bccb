"""The oracle row: what the target's own labels would give. It is no method and competes with none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedser.adapt import probabilities
from fedser.errors import TooLittleDataError, UsageError
from fedser.models import fit_logistic


def leave_one_speaker_out(x: Tensor, labels: Tensor, speakers: Sequence[str | None], classes: Sequence[str]) -> Tensor:
    """Logistic regression on the target's labels, each speaker answered by a model of all others.

    The penalty and the balanced classes are those of the plain rows (C 0.01); the features are normalised as for
    the transductive rows, without labels.

    Args:
        x: normalised features of the target [N, D].
        labels: class numbers, int64 [N]; −1 is not trained on.
        speakers: of each utterance.
        classes: emotion names.

    Returns:
        Probabilities [N, C].

    Raises:
        TooLittleDataError: fewer than two speakers, or an utterance without one.
        UsageError: the features are no vectors.
    """
    if x.dim() != 2:
        raise UsageError("Logistic regression takes vectors.", "Leave out the method supervised.")
    names = sorted({speaker for speaker in speakers if speaker is not None})
    if len(names) < 2 or None in speakers:
        raise TooLittleDataError(
            "Leaving one speaker out needs at least two, and every utterance's speaker.",
            "Name the speakers in a manifest, or leave out the method supervised.",
        )
    answers = torch.zeros(len(x), len(classes))
    for name in names:
        held = torch.tensor([speaker == name for speaker in speakers])
        rest = ~held & (labels >= 0)
        seen = sorted(set(labels[rest].tolist()))
        if len(seen) > 1:
            answers[held] = probabilities(fit_logistic(x[rest], labels[rest], classes), x[held])
        else:  # the others show one emotion, or none (zeros): there is nothing to tell apart
            answers[held] = torch.tensor([float(c in seen) for c in range(len(classes))])
    return answers
