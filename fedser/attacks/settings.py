"""What the attack lab attacks, how hard it tries, and which bars the defended setting must keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from fedser.config import Names, Settings
from fedser.federation.peer import PeerSettings

ATTACKS = ("gender", "speaker", "membership", "bundle", "imprint", "audit")
DEFENCES = ("none", "default", "private")


def _rounds(value: object) -> object:
    """Numbers with commas between them, and a single one, as the command line gives them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    return sorted({int(part) for part in value.split(",")}) if isinstance(value, str) else value


Rounds = Annotated[tuple[int, ...], BeforeValidator(_rounds), Field(min_length=1)]


class VoiceSettings(Settings):
    """Synthetic speakers, where no corpora are named; half of them female.

    Attributes:
        speakers: how many.
        utterances: of each.
        seconds: shortest and longest recording.
    """

    speakers: int = Field(default=80, ge=8, le=20_000)
    utterances: int = Field(default=10, ge=4, le=1000)
    seconds: tuple[float, float] = (0.8, 1.2)


class StudySettings(Settings):
    """The federation that is attacked.

    Attributes:
        method: what its sites adapt by.
        options: settings of the method that differ from its defaults.
        steps: local steps of one round.
        learning_rate: of the first step.
        batch_size: utterances a step.
        input_noise: on the normalised features; who sends orders sets it.
        dropout: whether the published model keeps its dropout; who signs bundles chooses.
        flatten: share of the last norm's scales that the orders of inference and membership hold, and, squared, of the
            peer's weights: flat answers make updates tell more. 1 sends the joint model as it is.
        peer: the linear peer that sites share.
        network: whether the network's weights travel.
        bystanders: sites whose updates move the joint model from round to round, besides the attacked one.
    """

    method: str = "aad"
    options: dict[str, Any] = Field(default_factory=dict)
    steps: int = Field(default=6, ge=1)
    learning_rate: float = Field(default=1e-2, gt=0)
    batch_size: int = Field(default=64, ge=2)
    input_noise: float = Field(default=0.0, ge=0)
    dropout: bool = False
    flatten: float = Field(default=0.1, gt=0, le=1)
    peer: PeerSettings = PeerSettings()
    network: bool = True
    bystanders: int = Field(default=6, ge=1, le=1000)


class InferenceSettings(Settings):
    """Gender and speaker inference.

    Attributes:
        shadow: sites that the attacker makes of speakers he knows, to train on.
        test: held-out sites of other speakers.
        speakers: of each site; all of one gender.
        utterances: of each site, at most.
        known: speakers among whom the one at a site is told; the attacker has other recordings of each.
        rounds: after how many rounds the attacker answers.
    """

    shadow: int = Field(default=200, ge=20)
    test: int = Field(default=400, ge=20)
    speakers: int = Field(default=2, ge=1)
    utterances: int = Field(default=24, ge=8)
    known: int = Field(default=10, ge=2)
    rounds: Rounds = (1, 5, 20)


class MembershipSettings(Settings):
    """Membership inference.

    Attributes:
        pool: utterances of which a random half is at each site, or in each training set.
        shadow: sites (or source models) that the attacker makes, to fit his two distributions of each utterance.
        test: sites (or source models) that are attacked.
        rounds: after how many rounds the attacker answers.
        epochs: of the overfitted source models, where nothing is defended.
        models: source models of each recipe for the published bundle, of which two thirds are the attacker's.
        bundle_pool: labelled utterances of which a random half trains each source model.
    """

    pool: int = Field(default=48, ge=16)
    shadow: int = Field(default=150, ge=16)
    test: int = Field(default=50, ge=4)
    rounds: int = Field(default=5, ge=1)
    epochs: int = Field(default=60, ge=1)
    models: int = Field(default=48, ge=6)
    bundle_pool: int = Field(default=200, ge=40)


class ImprintSettings(Settings):
    """The malicious server that reads inputs out of an update.

    Attributes:
        utterances: of the attacked site.
        steps: local steps of an order.
        cosine: an input counts as recovered where the attacker holds a vector of at least this cosine to it.
        rounds: how often the attacker, who is content with a few utterances, asks.
    """

    utterances: int = Field(default=230, ge=16)
    steps: int = Field(default=10, ge=1)
    cosine: float = Field(default=0.95, gt=0, lt=1)
    rounds: int = Field(default=3, ge=1)


class AuditSettings(Settings):
    """The audit of the claimed ε by canaries.

    Attributes:
        canaries: releases with the canary, and as many without.
        steps: private steps of one release, where the unit is inside the site: what a canary adds grows faster with
            them than the noise does. So does the claim, and no bound from N canaries exceeds log(N / 7.4).
        confidence: of the lower bound.
    """

    canaries: int = Field(default=1000, ge=50)
    steps: int = Field(default=8, ge=1)
    confidence: float = Field(default=0.95, gt=0, lt=1)


class Bars(Settings):
    """What the private policy must keep, and what the controls must reach for the run to prove anything.

    Attributes:
        gender: highest unweighted average recall of gender.
        speaker: highest multiple of chance at which a known speaker is named; no bar when None.
        membership: highest true-positive rate at 1 % false positives.
        bundle: the same of the published bundle, which no site's policy protects; no bar when None.
        imprint: most inputs recovered.
        judge: which end of the interval of a rate a bar judges: the ``value`` itself, or, in runs of few sites, its
            ``low`` end, so that a bar is missed only where chance does not explain it.
        control_gender: least recall of gender without a defence.
        control_speaker: least multiple of chance.
        control_membership: least true-positive rate at 1 % false positives.
        control_imprint: least share of the inputs recovered through a whole layer.
    """

    gender: float = 0.55
    speaker: float | None = 2.0
    membership: float = 0.02
    bundle: float | None = None
    imprint: int = 0
    judge: Literal["value", "low"] = "value"
    control_gender: float = 0.65
    control_speaker: float = 3.0
    control_membership: float = 0.1
    control_imprint: float = 0.1


class AttackSettings(Settings):
    """One run of the attack lab.

    Attributes:
        name: of the run, in its report.
        attacks: which of gender, speaker, membership, bundle, imprint and audit.
        defences: under which settings; ``none`` is always among them.
        policy: file of the policy that is called private.
        corpora: corpus name → folder of recordings with speakers, genders and emotions; synthetic speech when empty.
        readers: corpus name → name of its reader, where the folder does not tell.
        voices: the synthetic speech.
        bundle: the source model; the one that ships with fedser when None.
        signer: its provider's public key.
        study: the federation.
        inference: gender and speaker inference.
        membership: membership inference.
        imprint: the malicious server.
        audit: the audit by canaries.
        bars: see there.
        seed: of all that is drawn here; never of keys, noise or masks.
    """

    name: str = "attack lab"
    attacks: Names = ATTACKS
    defences: Names = DEFENCES
    policy: Path | None = None
    corpora: dict[str, Path] = Field(default_factory=dict)
    readers: dict[str, str] = Field(default_factory=dict)
    voices: VoiceSettings = VoiceSettings()
    bundle: Path | None = None
    signer: str | None = None
    study: StudySettings = StudySettings()
    inference: InferenceSettings = InferenceSettings()
    membership: MembershipSettings = MembershipSettings()
    imprint: ImprintSettings = ImprintSettings()
    audit: AuditSettings = AuditSettings()
    bars: Bars = Bars()
    seed: int = 0

    @field_validator("attacks", "defences")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in (*ATTACKS, *DEFENCES):
                raise ValueError(f"'{name}' is not known; choose from {', '.join((*ATTACKS, *DEFENCES))}")
        return value
