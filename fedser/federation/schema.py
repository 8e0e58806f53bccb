"""What may travel, as data: one frozen dataclass a message, each field with its type and range.

Both sides check every message against these classes, in strict mode: an unknown field, a missing one, a
number of the wrong type or outside its range is refused. What is not a field here cannot be sent: no
features, bank, pseudo-labels, logits, file names, speakers, class counts, run times or free text.
Normalisation statistics are buffers, not parameters, and so stand in no layout.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.dataclasses import dataclass

PROTOCOL: Literal[1] = 1

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
TensorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]
Whole = Annotated[int, Field(ge=0, le=10_000_000)]
Option = bool | Annotated[int, Field(ge=-1_000_000, le=1_000_000)] | Number | Name
Shape = Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Field(max_length=8)]

Encoding = Literal["f32", "f16", "i8"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

Round = Annotated[int, Field(ge=1, le=1_000_000)]
Attempt = Annotated[int, Field(ge=0, le=1000)]
Expires = Annotated[int, Field(ge=0, lt=2**53)]
Modulus = Literal[32, 64]
Signature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
Box = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{188}$")]  # two sealed shares of 33 bytes
MOST_MASKED = 1000  # sites of a masked sum
Names = Annotated[tuple[Name, ...], Field(min_length=2, max_length=MOST_MASKED)]

Scale = tuple[Annotated[int, Field(ge=1, le=2**31)], Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e6)]]

_STRICT = ConfigDict(strict=True, extra="forbid")


def _unique(layout: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if len({name for name, _ in layout}) != len(layout):
        raise ValueError("a tensor stands in the layout twice")
    return layout


def _within(start: int, steps: int, total: int) -> None:
    if start + steps > total:
        raise ValueError("the steps end after the schedule")


@dataclass(frozen=True, config=_STRICT)
class Work:
    """How much a site trains: local steps ``start`` to ``start + steps`` of a schedule of ``total`` steps.

    The learning rate falls over the whole federation, not anew in each round (lr·(1 + 10 t/total)^−decay).
    """

    steps: Whole
    start: Whole
    total: Whole
    batch_size: Annotated[int, Field(ge=1, le=100_000)]
    learning_rate: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)]
    momentum: Annotated[float, Field(allow_inf_nan=False, ge=0, lt=1)]
    weight_decay: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
    decay: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)]
    input_noise: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)]
    backbone_scale: Annotated[float, Field(allow_inf_nan=False, ge=0, le=100)]

    @model_validator(mode="after")
    def _inside(self) -> Work:
        _within(self.start, self.steps, self.total)
        return self


@dataclass(frozen=True, config=_STRICT)
class PeerWork:
    """How a site follows and refits the shared linear peer; see :mod:`fedser.federation.peer`.

    Attributes:
        weight: of the network's cross-entropy to the peer's labels.
        penalty: of the peer's distance from the published one.
        steps: of one refit.
        balance: of the labels: 0 keeps the site's mean answer, 1 makes all classes equally frequent.
    """

    weight: Annotated[float, Field(allow_inf_nan=False, gt=0, le=100)]
    penalty: Annotated[float, Field(allow_inf_nan=False, ge=1e-3, le=100)]
    steps: Annotated[int, Field(ge=1, le=1000)]
    balance: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]


@dataclass(frozen=True, config=_STRICT)
class StudentWork:
    """How far the joint network learns from the site's own one; see :mod:`fedser.federation.student`.

    Attributes:
        start, steps, total: steps ``start`` to ``start + steps`` of a schedule of ``total``.
        learning_rate: of the schedule's first step.
    """

    start: Whole
    steps: Whole
    total: Annotated[int, Field(ge=1, le=10_000_000)]
    learning_rate: Annotated[float, Field(allow_inf_nan=False, gt=0, le=10)]

    @model_validator(mode="after")
    def _inside(self) -> StudentWork:
        _within(self.start, self.steps, self.total)
        return self


@dataclass(frozen=True, config=_STRICT)
class Terms:
    """What all sites of a masked sum have in common; see :mod:`fedser.federation.secure_schema`.

    Attributes:
        threshold: sites whose shares unmask the sum; fewer survivors, and nobody learns anything.
        grid: each value is rounded to a multiple of 2^−grid.
        modulus: bits of the integers that travel.
        clip: L2 norm to which every site shortens its update, where its own policy does not do so earlier.
    """

    threshold: Annotated[int, Field(ge=2, le=MOST_MASKED)]
    grid: Annotated[int, Field(ge=4, le=40)]
    modulus: Modulus
    clip: Annotated[float, Field(allow_inf_nan=False, gt=0, le=1e4)]


@dataclass(frozen=True, config=_STRICT)
class Masked:
    """The part of an order that has the update leave under masks.

    Attributes:
        roster: digest of the roster whose members the masks are for.
        senders: of them, those whose shares all others have: between these there are masks.
        boxes: what each sender but this site sealed for it, in the order of ``senders``.
    """

    terms: Terms
    roster: Digest
    senders: Names
    boxes: Annotated[tuple[Box, ...], Field(max_length=MOST_MASKED)]


@dataclass(frozen=True, config=_STRICT)
class Order:
    """Provider → site: what to do with the tensors beside it.

    Attributes:
        study: the federation, across restarts of either side.
        round: counts from 1; with ``attempt`` it never goes back.
        phase: ``train`` (adapt and answer with the change) or ``finish`` (the last weights: keep them as
            the personal model, after ``work.steps`` more steps; the answer holds no tensor).
        method: name of an installed method, ``options`` its settings.
        seed: of the site's random numbers in this order.
        layout: names and shapes of the tensors, in order; the update has the same.
        tensor_digest: SHA-256 of the flat tensor.
        expires: Unix time, in seconds, after which the order is refused.
        encoding: of the update's values: float32, float16, or 8-bit integers with one scale a tensor. The order's
            own tensors are float32.
        peer: what to do with the shared linear peer; None where none is shared. Its tensor, ``linear.weight``, is
            the last of the layout.
        masking: for an update that leaves under masks; None for one that leaves as it is.
        student: what the network that travels learns from the site's own one, which ``work`` adapts in full at the
            site's first order; None where the network that ``work`` adapts is the one that travels.
    """

    protocol: Literal[1]
    study: Name
    round: Round
    attempt: Attempt
    site: Name
    phase: Literal["train", "finish"]
    method: Name
    options: Annotated[dict[Name, Option], Field(max_length=32)]
    work: Work
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    layout: Annotated[
        tuple[tuple[TensorName, Shape], ...], Field(min_length=1, max_length=4096), AfterValidator(_unique)
    ]
    tensor_digest: Digest
    expires: Expires
    encoding: Encoding = "f32"
    peer: PeerWork | None = None
    masking: Masked | None = None
    student: StudentWork | None = None


@dataclass(frozen=True, config=_STRICT)
class Scalars:
    """The only figures about a site's data that may leave, rounded to three places by the gate.

    Attributes:
        loss: mean training loss over the order's steps.
        confidence: mean largest probability on the site's utterances after them.
        diversity: entropy of the mean prediction, as a share of its maximum.
    """

    loss: Number
    confidence: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]
    diversity: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)]


@dataclass(frozen=True, config=_STRICT)
class Update:
    """Site → provider: the change of the order's tensors (after minus before), beside it as one flat tensor.

    Attributes:
        order_digest: SHA-256 of the order that it answers.
        tensor_digest: SHA-256 of the flat tensor; an answer to ``finish`` has one without elements.
        utterances: the site's utterances in coarse steps, or None.
        scalars: see :class:`Scalars`, or None.
        encoding: of the tensor beside it, the order's.
        scales: for ``i8``, of each tensor of the layout: its number of values, and what one step is worth; else None.
    """

    protocol: Literal[1]
    order_digest: Digest
    tensor_digest: Digest
    utterances: Annotated[int, Field(ge=1, le=1_000_000)] | None
    scalars: Scalars | None
    encoding: Encoding = "f32"
    scales: Annotated[tuple[Scale, ...], Field(max_length=4096)] | None = None


class Code(IntEnum):
    """Why a site refuses an order. The code is all that leaves."""

    MALFORMED = 1  # not on the schema, or a signature that does not fit
    EXPIRED = 2
    OTHER_SITE = 3
    OTHER_STUDY = 4
    STALE = 5  # an earlier round or attempt, or a repeat with other contents
    METHOD = 6  # a method, or one of its options, that the policy does not allow
    WORK = 7  # steps, batch or another setting outside the policy's ranges
    ROUNDS_SPENT = 8
    LAYOUT = 9  # tensors that the policy keeps, or that the bundle does not have
    NOT_FINITE = 10
    RADIUS = 11  # weights too far from the signed bundle
    TOO_LITTLE_DATA = 12
    FAILED = 13  # the site could not do it
    TRAP = 14  # weights with units that single out a few utterances
    HOURS = 15  # outside the site's hours
    BUDGET = 16  # the privacy budget is spent
    PRIVATE = 17  # an order that is not sound under the site's privacy unit
    MASK = 18  # the update may leave masked only, or the roster, a share or a list of the masked sum does not fit


@dataclass(frozen=True, config=_STRICT)
class Refusal:
    """Site → provider: no update, and the code why. Without an order digest, the order could not be read."""

    protocol: Literal[1]
    order_digest: Digest | None
    code: Code
