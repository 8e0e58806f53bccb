"""Deep CORAL: correlation alignment (Sun and Saenko, ECCV workshops 2016, arXiv 1607.01719)."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from fedser.config import Settings
from fedser.transfer.reference import Batch, Reference


class CoralSettings(Settings):
    """The distance between the covariances of the two corpora's bottleneck features.

    Attributes:
        weight: of the distance.
    """

    weight: float = Field(default=10.0, ge=0)


class Coral(Reference):
    """Second-order statistics of the two corpora agree."""

    name = "coral"
    settings_type = CoralSettings
    settings: CoralSettings

    def loss(self, batch: Batch) -> Mapping[str, Tensor]:
        """The CORAL loss."""
        return {"correlation": self.settings.weight * correlation_distance(batch.source.b, batch.target.b)}


def covariance(x: Tensor) -> Tensor:
    """Unbiased covariance [d, d] of rows [B, d], B ≥ 2 (eq. 2 and 3)."""
    centred = x - x.mean(dim=0)
    return centred.T @ centred / (len(x) - 1)


def correlation_distance(source: Tensor, target: Tensor) -> Tensor:
    """‖C_S − C_T‖²_F / (4 d²) for rows [B, d] and [B', d] (eq. 1)."""
    difference = covariance(source) - covariance(target)
    return difference.square().sum() / (4 * source.shape[1] ** 2)
