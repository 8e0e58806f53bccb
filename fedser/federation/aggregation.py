"""How a provider makes one step of many updates: a rule that joins them, and the server's own optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, model_validator

from fedser.config import Settings
from fedser.federation.adam import adam_update
from fedser.federation.aggregate import FixedPointMean, NormBoundedMean, Rule, Weighting
from fedser.federation.layout import PEER, Layout
from fedser.federation.robust import Median, MultiKrum, TrimmedMean
from fedser.federation.stages import ServerStage, apply_update, average, plainly, together

RuleName = Literal["mean", "norm_bounded", "trimmed_mean", "median", "multi_krum"]
ROBUST: tuple[RuleName, ...] = ("trimmed_mean", "median", "multi_krum")


class AggregationSettings(Settings):
    """How updates become the next model.

    Attributes:
        rule: ``mean``; ``norm_bounded``, the mean of updates shortened to ``bound``; ``trimmed_mean``; ``median``; or
            ``multi_krum``. The last three bear hostile sites, and keep all updates of a round in memory.
        trim: share of sites that ``trimmed_mean`` leaves out at either end of each value, rounded up.
        byzantine: hostile sites that ``multi_krum`` bears; it needs more than twice as many updates and two.
        bound: L2 norm to which ``norm_bounded`` shortens longer updates. Honest ones of EMOVO sites, five rounds of 24
            steps from the default bundle, had 0.07 to 0.38.
        weighting: of the means: ``uniform``, or by the sites' coarse ``counts``.
        optimiser: ``momentum`` (with a momentum of 0, plain averaging) or ``adam``.
        momentum: share of the server's last step that is added to the next; β1 of Adam, where 0.9 is usual.
        rate: the server's step: in joint updates, 3 when None (the mean of updates that only partly agree is shorter
            than each of them), 1 with a student; with Adam in weights, 0.01 when None.
        beta2: of Adam: decay of the mean squared update.
        epsilon: of Adam: τ, the size of update below which steps grow shorter.
    """

    rule: RuleName = "mean"
    trim: float = Field(default=0.2, ge=0, lt=0.5)
    byzantine: int = Field(default=1, ge=0, le=10_000)
    bound: float = Field(default=0.5, gt=0, le=1e6)
    weighting: Weighting = "uniform"
    optimiser: Literal["momentum", "adam"] = "momentum"
    momentum: float = Field(default=0.0, ge=0, lt=1)
    rate: float | None = Field(default=None, gt=0, le=10)
    beta2: float = Field(default=0.99, ge=0, lt=1)
    epsilon: float = Field(default=1e-3, gt=0, le=1)

    @model_validator(mode="after")
    def _counts_are_no_votes(self) -> AggregationSettings:
        if self.weighting == "counts" and self.rule in ROBUST:
            raise ValueError(f"the rule {self.rule} weighs all sites alike; counts go with mean and norm_bounded")
        return self


def server_stages(
    settings: AggregationSettings, layout: Layout = (), *, masked: bool = False, student: bool = False
) -> tuple[ServerStage, ...]:
    """The stages of a server step: join the updates, then move the tensors.

    Args:
        settings: of the study.
        layout: of its tensors. A shared linear peer among them moves by the joint update itself: it is convex, and
            longer steps would leave its optimum behind.
        masked: whether a masked sum gives the mean; the rule is ``mean`` then.
        student: whether the joint network is a student, whose updates agree: the default step is then one mean.
    """
    rate = settings.rate
    if settings.optimiser == "adam":
        step = adam_update(settings.momentum, settings.beta2, settings.epsilon, 0.01 if rate is None else rate)
    else:
        step = apply_update(settings.momentum, (1.0 if student else 3.0) if rate is None else rate)
    join = together() if masked else average(_rule(settings), settings.weighting)
    return join, plainly(layout, PEER, step)


def _rule(settings: AggregationSettings) -> Callable[[int], Rule]:
    rules: dict[RuleName, Callable[[int], Rule]] = {
        "mean": FixedPointMean,
        "norm_bounded": lambda size: NormBoundedMean(size, settings.bound),
        "trimmed_mean": lambda size: TrimmedMean(size, settings.trim),
        "median": Median,
        "multi_krum": lambda size: MultiKrum(size, settings.byzantine),
    }
    return rules[settings.rule]
