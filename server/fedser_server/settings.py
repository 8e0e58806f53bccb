"""What a study does, as its provider sets it: one YAML file, or ``key=value`` on the command line of ``start``."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from fedser.adapt import Schedule
from fedser.config import Settings
from fedser.federation.aggregation import AggregationSettings
from fedser.federation.peer import PeerSettings
from fedser.federation.policy import Leave
from fedser.federation.schema import Encoding
from fedser.federation.secure_settings import MaskingTerms, unsound
from fedser.federation.student import StudentSettings


class StudyMethod(Settings):
    """The method that all sites run.

    Attributes:
        name: of an installed method with gradient steps.
        options: those of its settings that differ from their defaults.
    """

    name: str = "ecan"
    options: dict[str, Any] = Field(default_factory=dict)


class StudySettings(Settings):
    """One study.

    Attributes:
        sites: how many sites the first round waits for.
        rounds: exchanges; 0 publishes the bundle and asks for nothing.
        quorum: least number of valid updates of a round; more than half of ``sites`` when None.
        method: what the sites run.
        schedule: of the local loop; the method's own when None. Its steps are each site's local steps in all.
        utterances: of a site of usual size, from which the schedule's epochs become steps where it names none: a
            provider does not know how much speech its sites have.
        personal: share of the local steps that each site keeps for the last adaptation, whose result stays there.
        leave: which tensors the orders ask for; a site's policy may allow fewer, and then it refuses.
        aggregation: how updates become the next model.
        seed: of the study; each site's own derives from it and the site's name.
        deadline: seconds after which a round goes on without a site.
        patience: seconds without a sign of life after which it does so earlier.
        lifetime: seconds for which a site may answer an order.
        largest_norm: an update with a larger L2 norm is refused. A site's default policy clips its own to 20; honest
            ones of speech-emotion sites had below 1.
        peer: the linear peer that sites share, besides the network; a site's policy must allow it (``peer: true``).
        network: whether the network's weights travel; if not, each site keeps its own, and the peer alone is shared.
        student: the network that travels as a student of each site's own one; ``personal`` is then a share of its
            steps.
        encoding: of the updates' values: ``f32``, ``f16`` (half the bytes) or ``i8`` (a quarter).
        masked: whether updates travel under masks, so that this provider learns their sum and none of them.
        masking: the terms of the masked sums.
    """

    sites: int = Field(default=2, ge=1, le=10_000)
    rounds: int = Field(default=5, ge=0, le=100_000)
    quorum: int | None = Field(default=None, ge=1)
    method: StudyMethod = StudyMethod()
    schedule: Schedule | None = None
    utterances: int = Field(default=200, ge=1)
    personal: float = Field(default=0.3, ge=0, lt=1)
    leave: Leave = "all_but_first"
    aggregation: AggregationSettings = AggregationSettings()
    seed: int = Field(default=0, ge=0, lt=2**31)
    deadline: float = Field(default=600.0, gt=0, le=30 * 86_400)
    patience: float = Field(default=60.0, ge=15, le=86_400)
    lifetime: int = Field(default=7 * 86_400, ge=60, le=365 * 86_400)
    largest_norm: float = Field(default=50.0, gt=0, le=30_000)
    encoding: Encoding = "f32"
    peer: PeerSettings = PeerSettings()
    network: bool = True
    student: StudentSettings = StudentSettings()
    masked: bool = False
    masking: MaskingTerms = MaskingTerms()

    @model_validator(mode="after")
    def _masks_fit(self) -> StudySettings:
        reason = unsound(self.aggregation, self.encoding) if self.masked else ""
        if reason:
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _quorum_can_be_reached(self) -> StudySettings:
        if self.quorum is not None and self.quorum > self.sites:
            raise ValueError(f"a quorum of {self.quorum} cannot be reached by {self.sites} sites")
        return self

    @property
    def least(self) -> int:
        """The quorum."""
        return self.quorum if self.quorum is not None else self.sites // 2 + 1

    def science(self) -> dict[str, Any]:
        """The settings that decide the result: a study goes on only with the same ones."""
        running = {"sites", "quorum", "deadline", "patience", "lifetime"}
        return self.model_dump(mode="json", exclude=running)
