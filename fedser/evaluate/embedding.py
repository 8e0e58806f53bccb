"""The bottleneck drawn in the plane, before and after: where a model puts each emotion."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedser.evaluate.contenders import SeedResult
from fedser.evaluate.world import World, labels_of

MOST = 600  # utterances in a drawing: more are a smear, and t-SNE takes a time that grows with their square
LABELS = {"source": "source model", "personal": "federated, last steps at the site"}


def embeddings(world: World, seeds: Sequence[SeedResult]) -> list[dict[str, Any]]:
    """Panels for the report, from the first seed that has any; colours come from the labels."""
    drawn = next((result.embedded for result in seeds if result.embedded), {})
    labels = labels_of(world)
    rows = (labels >= 0).nonzero()[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, min(MOST, len(rows))).long()]
    return [
        {
            "label": LABELS[name],
            "points": [[round(float(value), 3) for value in point] for point in plane(embedded[rows])],
            "classes": labels[rows].tolist(),
        }
        for name, embedded in drawn.items()
        if len(embedded) and len(rows) >= 10
    ]


def plane(embedded: Tensor) -> npt.NDArray[np.float32]:
    """t-SNE (van der Maaten and Hinton 2008) by cosine distance: [N, d] to [N, 2], the same in each run."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(embedded) - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its own initialisation where points coincide
        placed = TSNE(metric="cosine", init="random", perplexity=perplexity, random_state=0, n_jobs=1)
        points: npt.NDArray[np.float32] = placed.fit_transform(embedded.double().numpy())
    return points
