"""What a site allows: its owner writes it, beside the data; nothing of it ever comes from the network."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import Field

from fedser.config import Settings

Leave = Literal["all", "all_but_first", "head", "none"]


class Policy(Settings):
    """The site's policy. Ranges have lower bounds too: an update over few utterances or one step tells more.

    Attributes:
        methods: names of methods that may run here; all installed ones when None.
        steps_min: least local steps of one order.
        steps_max: most local steps of one order.
        total_max: steps of the whole schedule.
        batch_min: least utterances a step. A site smaller than a batch takes all it has.
        batch_max: most utterances a step.
        learning_rate_max: largest learning rate of an order.
        rounds: orders answered in one study.
        clip: largest L2 norm of an update; a longer one is scaled down to it.
        radius: how far inbound weights may lie from the signed bundle's, layer by layer: at most ``radius``
            times the layer's own norm (at least 0.1 times the square root of its size).
        trap_few: inbound weights are run on the site's utterances; fewer of them than this share (and than 2) are a
            few. Units that single out a few utterances write these into the update.
        trap_alone: how many more units of a hidden layer than the signed bundle's may fire for a few utterances
            alone, as a share of the layer.
        trap_pairs: how many more may fire for the same utterances as another unit but a few.
        leave: which tensors may leave: ``all`` adaptable ones, ``all_but_first`` layer (whose updates carry
            the inputs), the ``head`` alone, or ``none``.
        own_layers: what training does to layers that do not travel: ``adapt`` them to this site (no order can
            set them, and the provider does not learn them), or ``keep`` them as the bundle has them.
        counts: whether the number of utterances may leave, rounded to ``count_unit``.
        count_unit: the count that leaves is rounded to a multiple of this, and never to 0.
        scalars: whether the named scalars may leave.
        utterances_min: least utterances for taking part.
        speakers_min: least speakers for taking part; unknown speakers count as one.
    """

    methods: tuple[str, ...] | None = None
    steps_min: int = Field(default=1, ge=1)
    steps_max: int = Field(default=10_000, ge=1)
    total_max: int = Field(default=100_000, ge=1)
    batch_min: int = Field(default=16, ge=2)
    batch_max: int = Field(default=1024, ge=2)
    learning_rate_max: float = Field(default=0.1, gt=0)
    rounds: int = Field(default=200, ge=1)
    clip: float = Field(default=20.0, gt=0)
    radius: float = Field(default=1.0, gt=0)
    trap_few: float = Field(default=0.02, ge=0, le=0.5)
    trap_alone: float = Field(default=0.02, ge=0, le=1)
    trap_pairs: float = Field(default=0.15, ge=0, le=1)
    leave: Leave = "all_but_first"
    own_layers: Literal["keep", "adapt"] = "adapt"
    counts: bool = True
    count_unit: int = Field(default=50, ge=10, le=1_000_000)
    scalars: bool = True
    utterances_min: int = Field(default=8, ge=1)
    speakers_min: int = Field(default=1, ge=1)

    def may_leave(self, adaptable: Collection[str], first_layer: Collection[str]) -> frozenset[str]:
        """The names, out of a model's adaptable ones, that may leave."""
        if self.leave == "all":
            return frozenset(adaptable)
        if self.leave == "all_but_first":
            return frozenset(adaptable) - frozenset(first_layer)
        if self.leave == "head":
            return frozenset(name for name in adaptable if name.startswith("head."))
        return frozenset()

    def coarse(self, utterances: int) -> int | None:
        """The count that may leave: rounded to ``count_unit``, at least one unit; None where it may not."""
        if not self.counts:
            return None
        return max(round(utterances / self.count_unit), 1) * self.count_unit
