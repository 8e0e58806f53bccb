"""Settings of a simulation, one small group a concern."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from fedser.adapt import Schedule
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import NormalisationSettings
from fedser.config import Seeds, Settings, listed
from fedser.evaluate.partition import PartitionSettings
from fedser.federation.aggregation import AggregationSettings
from fedser.federation.peer import PeerSettings
from fedser.federation.policy import Policy
from fedser.federation.schema import Encoding
from fedser.federation.secure_settings import MaskingTerms, unsound
from fedser.federation.student import StudentSettings
from fedser.models import ModelSettings
from fedser.train import TrainSettings

Contender = Literal["source", "bn", "alone", "federated", "personal", "pooled", "newcomer"]
CONTENDERS: tuple[Contender, ...] = get_args(Contender)


class SourceSettings(Settings):
    """Where the source model comes from: labelled corpora, or a bundle; without either, the default bundle.

    Attributes:
        corpora: corpus name → folder or manifest of labelled recordings; a model is trained with each seed.
        readers: corpus name → name of its reader, where the folder does not tell.
        bundle: a source model to use instead of training; the one that ships with fedser when None.
        signer: the provider's public key, in hexadecimal digits or as a file; needed for any other bundle.
        features: what is computed, where a model is trained.
        model: what the classifier looks like, where a model is trained.
        train: how it is trained.
    """

    corpora: dict[str, Path] = Field(default_factory=dict)
    readers: dict[str, str] = Field(default_factory=dict)
    bundle: Path | None = None
    signer: str | None = None
    features: FeatureSettings = FeatureSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()


class TargetSettings(Settings):
    """Labelled recordings that play the sites' speech; labels serve the metrics.

    Attributes:
        corpora: corpus name → folder or manifest.
        readers: corpus name → name of its reader, where the folder does not tell.
        speaker_from: rule that tells the speaker from the path: ``parent``, ``grandparent``, ``none``, or a regular
            expression with one group.
    """

    corpora: dict[str, Path] = Field(min_length=1)
    readers: dict[str, str] = Field(default_factory=dict)
    speaker_from: str | None = None


class MethodSettings(Settings):
    """The method that all contenders run.

    Attributes:
        name: of the method, see below.
        options: those of its settings that differ from their defaults.
    """

    name: str = "ecan"
    options: dict[str, Any] = Field(default_factory=dict)


class RoundSettings(Settings):
    """How sites join.

    Attributes:
        rounds: exchanges.
        personal: share of the local steps that ``personal`` keeps for the last adaptation at the site.
        personal_rounds: exchanges of ``personal`` before it; as many as ``rounds`` when None.
        aggregation: how updates become the next model.
        encoding: of the updates' values: 4 bytes each (``f32``), 2 (``f16``), or 1 (``i8``, with one scale a tensor).
        peer: the linear peer that sites share; needs ``policy.peer``. The contenders ``alone`` and ``pooled`` then
            follow and refit a peer of their own as often.
        network: whether the network's weights travel; if not, sites share the peer alone, and a newcomer answers by
            the source's network and the joint peer together.
        student: the network that travels as a student of each site's own one; ``personal`` is then a share of its
            steps, and the contenders ``alone`` and ``pooled`` teach a student of their own as long.
        masked: whether updates travel under masks, so that the provider learns their sum and none of them.
        masking: the terms of the masked sums.
    """

    rounds: int = Field(default=5, ge=1)
    personal: float = Field(default=0.3, ge=0, le=1)
    personal_rounds: int | None = Field(default=None, ge=1)
    aggregation: AggregationSettings = AggregationSettings()
    encoding: Encoding = "f32"
    peer: PeerSettings = PeerSettings()
    network: bool = True
    student: StudentSettings = StudentSettings()
    masked: bool = False
    masking: MaskingTerms = MaskingTerms()

    @model_validator(mode="after")
    def _masks_fit(self) -> RoundSettings:
        reason = unsound(self.aggregation, self.encoding) if self.masked else ""
        if reason:
            raise ValueError(reason)
        return self


class SimulationSettings(Settings):
    """One simulation.

    Attributes:
        name: of the simulation, in its report.
        source: the model that the sites start from.
        target: the sites' speech.
        partition: how the speech is divided among sites.
        schedule: of the local loop, the same for all contenders; the method's own when None. Its steps (or its
            epochs over a site of mean size) are K, the local steps of each site in all.
        normalisation: fitted inside each site, after partitioning; a bundle's own rule when None.
        method: what the sites adapt by.
        federation: how sites join.
        policy: of every site.
        classes: emotions that the sites have, where a bundle knows more.
        unknown_emotions: utterances whose emotion the model does not know: ``leave_out``, or ``adapt`` on them
            too; they are never scored.
        contenders: what is compared.
        seeds: a list of seeds, or their number.
    """

    name: str = "simulation"
    source: SourceSettings = SourceSettings()
    target: TargetSettings
    partition: PartitionSettings = PartitionSettings()
    normalisation: NormalisationSettings | None = None
    method: MethodSettings = MethodSettings()
    schedule: Schedule | None = None
    federation: RoundSettings = RoundSettings()
    policy: Policy = Policy()
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    unknown_emotions: Literal["leave_out", "adapt"] = "leave_out"
    contenders: Annotated[tuple[Contender, ...], BeforeValidator(listed)] = Field(default=CONTENDERS, min_length=1)
    seeds: Seeds = (0, 1, 2, 3, 4)
