"""The memory bank: what the model last said of every utterance of the site. It never leaves the site."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

CHUNK = 1024  # rows of similarities computed at a time: 10,000 utterances need 40 MB, not 400


class Bank:
    """Features F [N, d] of length 1 and scores S [N, C] of all N utterances, detached.

    Args:
        embedded: bottleneck outputs [N, d] of any length.
        scores: class probabilities [N, C], with exact zeros for masked classes.
    """

    def __init__(self, embedded: Tensor, scores: Tensor) -> None:
        self.features = functional.normalize(embedded.detach(), dim=1)
        self.scores = scores.detach().clone()

    def __len__(self) -> int:
        """Number of utterances N."""
        return len(self.features)

    def update(self, index: Tensor, features: Tensor, scores: Tensor) -> None:
        """Put the current batch in, before it is looked up.

        Args:
            index: the batch's rows, int64 [B].
            features: of length 1, [B, d].
            scores: class probabilities [B, C].
        """
        self.features[index] = features.detach()
        self.scores[index] = scores.detach()

    def neighbours(self, index: Tensor, count: int) -> Tensor:
        """The rows most similar to each given row by cosine, itself left out, nearest first.

        Args:
            index: rows to look up, int64 [B].
            count: M; a bank of N rows gives at most N − 1.

        Returns:
            Rows, int64 [B, min(M, N − 1)].
        """
        count = min(count, len(self) - 1)
        found = []
        for rows in torch.split(index, CHUNK):
            similarity = self.features[rows] @ self.features.T
            others = similarity.scatter(1, rows.unsqueeze(1), -torch.inf)  # not in place: groups come under vmap
            found.append(others.topk(count, dim=1).indices)
        return torch.cat(found)
