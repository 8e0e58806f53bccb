"""What a site allows: its owner writes it, beside the data; nothing of it ever comes from the network."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from fedser.config import Settings
from fedser.federation.schema import ENCODINGS, Encoding
from fedser.privacy.settings import PrivacySettings

Leave = Literal["all", "all_but_first", "head", "none"]


Range = tuple[float, float]
Words = tuple[str, ...]


class Policy(Settings):
    """The site's policy. Ranges have lower bounds too: an update over few utterances or one step tells more.

    Attributes:
        methods: names of methods that may run here; all installed ones when None.
        options: allowed settings of methods, as ``method.option``: two numbers, the lowest and the highest, or a list
            of words. An option that is not named here may have any value that its method accepts.
        hours: hours of the day at which orders are carried out, in the site's own time, as ``22-6`` (from 22:00 until
            6:00); at all hours when None.
        steps_min: least local steps of one order.
        steps_max: most local steps of one order.
        total_max: steps of the whole schedule.
        batch_min: least utterances a step. A site smaller than a batch takes all it has.
        batch_max: most utterances a step.
        learning_rate_max: largest learning rate of an order.
        rounds: orders answered in one study.
        clip: largest L2 norm of an update; a longer one is scaled down to it.
        values_max: most values of an update; as many as the bundle has parameters when None.
        encodings: number formats in which updates may leave: 4 bytes a value (``f32``), 2 (``f16``) or 1 (``i8``).
        radius: how far inbound weights may lie from the signed bundle's, layer by layer: at most ``radius``
            times the layer's own norm (at least 0.1 times the square root of its size).
        trap_few: inbound weights are run on the site's utterances; fewer than 2 of them, or than this share, are a
            few. Units that single out a few utterances write these into the update.
        trap_alone: how many more units of a hidden layer than the signed bundle's may fire for a few utterances
            alone, as a share of the layer; at sites of N > 32 utterances times 32 / N.
        trap_pairs: how many more may fire for the same utterances as another unit but a few; at sites of
            N > 32 utterances times (32 / N)².
        leave: which tensors may leave: ``all`` adaptable ones, ``all_but_first`` layer (whose updates carry
            the inputs), the ``head`` alone, or ``none``.
        own_layers: what training does to layers that do not travel: ``adapt`` them to this site (no order can
            set them, and the provider does not learn them), or ``keep`` them as the bundle has them.
        statistics: whether normalisation statistics may leave. No message of this version carries them, so only
            false is accepted.
        prototypes: whether class prototypes may leave. No message of this version carries them, so only false is
            accepted.
        peer: whether the change of the shared linear peer may leave: class by class a weighted sum of the site's
            feature vectors, which tells more of its speech than the network's inner layers do, and most where there
            are few utterances. It never leaves where ``leave`` is ``none``.
        peer_steps_min: least steps of the peer's refit: that of one step is the weighted sum itself.
        counts: whether the number of utterances may leave, rounded to ``count_unit``.
        count_unit: the count that leaves is rounded to a multiple of this, and never to 0.
        scalars: whether the named scalars may leave.
        utterances_min: least utterances for taking part.
        speakers_min: least speakers for taking part; unknown speakers count as one.
        privacy: differential privacy of what leaves, its budget, and the masked sum.
    """

    methods: tuple[str, ...] | None = None
    options: dict[str, Range | Words] = Field(default_factory=dict)
    hours: str | None = Field(default=None, pattern=r"^([01]?\d|2[0-3])-([01]?\d|2[0-4])$")
    steps_min: int = Field(default=1, ge=1)
    steps_max: int = Field(default=10_000, ge=1)
    total_max: int = Field(default=100_000, ge=1)
    batch_min: int = Field(default=16, ge=2)
    batch_max: int = Field(default=1024, ge=2)
    learning_rate_max: float = Field(default=0.1, gt=0)
    rounds: int = Field(default=200, ge=1)
    clip: float = Field(default=20.0, gt=0)
    values_max: int | None = Field(default=None, ge=1)
    encodings: tuple[Encoding, ...] = Field(default=ENCODINGS, min_length=1)
    radius: float = Field(default=1.0, gt=0)
    trap_few: float = Field(default=0.02, ge=0, le=0.5)
    trap_alone: float = Field(default=0.02, ge=0, le=1)
    trap_pairs: float = Field(default=0.25, ge=0)
    leave: Leave = "all_but_first"
    own_layers: Literal["keep", "adapt"] = "adapt"
    statistics: bool = False
    prototypes: bool = False
    peer: bool = False
    peer_steps_min: int = Field(default=5, ge=1)
    counts: bool = True
    count_unit: int = Field(default=50, ge=10, le=1_000_000)
    scalars: bool = True
    utterances_min: int = Field(default=8, ge=1)
    speakers_min: int = Field(default=1, ge=1)
    privacy: PrivacySettings = PrivacySettings()

    @field_validator("statistics", "prototypes")
    @classmethod
    def _no_message_for_it(cls, value: bool) -> bool:
        if value:
            raise ValueError("no message of this version carries them: only false is possible")
        return value

    @field_validator("hours")
    @classmethod
    def _some_hours(cls, value: str | None) -> str | None:
        if value is not None and len({int(hour) % 24 for hour in value.split("-")}) == 1 and value not in _WHOLE_DAY:
            raise ValueError("the first and the last hour are the same")
        return value

    @field_validator("options", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        """YAML's true and false as words, so that they are not taken for the numbers 1 and 0."""
        if not isinstance(value, dict):
            return value
        return {
            key: tuple(str(item).lower() if isinstance(item, bool) else item for item in allowed)
            if isinstance(allowed, list | tuple)
            else allowed
            for key, allowed in value.items()
        }

    @field_validator("options")
    @classmethod
    def _known_options(cls, value: dict[str, Range | Words]) -> dict[str, Range | Words]:
        for key, allowed in value.items():
            method, _, option = key.partition(".")
            known = _options_of(method)
            if option not in known:
                raise ValueError(f"'{key}' is no option of an installed method")
            if not allowed:
                raise ValueError(f"'{key}' allows nothing")
            if isinstance(allowed[0], float) and not allowed[0] <= float(allowed[1]):  # NaN too
                raise ValueError(f"the lowest value of '{key}' is above the highest")
        return value

    @model_validator(mode="after")
    def _clips_agree(self) -> Policy:
        if self.privacy.on and self.privacy.clip > self.clip:
            raise ValueError(f"privacy.clip is above clip, {self.clip:g}, which bounds every update")
        return self

    def may_leave(self, adaptable: Collection[str], first_layer: Collection[str]) -> frozenset[str]:
        """The names, out of a model's adaptable ones, that may leave."""
        if self.leave == "all":
            return frozenset(adaptable)
        if self.leave == "all_but_first":
            return frozenset(adaptable) - frozenset(first_layer)
        if self.leave == "head":
            return frozenset(name for name in adaptable if name.startswith("head."))
        return frozenset()

    @property
    def shares_peer(self) -> bool:
        """Whether the linear peer may leave."""
        return self.peer and self.leave != "none"

    def coarse(self, utterances: int) -> int | None:
        """The count that may leave: rounded to ``count_unit``, at least one unit; None where it may not."""
        if not self.counts:
            return None
        return max(round(utterances / self.count_unit), 1) * self.count_unit

    def at_work(self, hour: int) -> bool:
        """Whether orders are carried out in the hour of the day from ``hour`` (0 to 23) on."""
        if self.hours is None:
            return True
        first, last = (int(part) for part in self.hours.split("-"))
        return first <= hour < last if first < last else hour >= first or hour < last

    def allows(self, method: str, settings: BaseModel) -> bool:
        """Whether a method's settings, those left at their defaults too, lie in the allowed ranges."""
        for key, allowed in self.options.items():
            owner, _, option = key.partition(".")
            if owner == method and not _inside(getattr(settings, option), allowed):
                return False
        return True


_WHOLE_DAY = ("0-24", "00-24")


def _options_of(method: str) -> Collection[str]:
    from fedser.adapt import METHODS  # torch: only for a policy that names options

    return METHODS[method].settings_type.model_fields if method in METHODS else ()


def _inside(value: object, allowed: Range | Words) -> bool:
    if isinstance(allowed[0], str):
        return (str(value).lower() if isinstance(value, bool) else str(value)) in allowed
    low, high = (float(bound) for bound in allowed)
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def template() -> str:
    """A policy file with every key at its default, explained by a comment: YAML that reads back as ``Policy()``."""
    lines = ["# What this site allows. Nothing of this file ever comes from the network.", ""]
    return "\n".join(lines + _keys(Policy()))


def _keys(settings: BaseModel, indent: str = "") -> list[str]:
    lines, told = [], _explained(type(settings))
    for name, value in settings.model_dump(mode="json").items():
        lines += [f"{indent}# {line}" for line in textwrap.wrap(told[name], 110 - len(indent))]
        inner = getattr(settings, name)
        if isinstance(inner, BaseModel):
            lines += [f"{indent}{name}:", *_keys(inner, indent + "  ")]
        else:
            lines += [f"{indent}{name}: {json.dumps(value)}", ""]
    return lines


def _explained(kind: type[BaseModel]) -> Mapping[str, str]:
    """The ``Attributes:`` of a docstring, by name."""
    text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2].split("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(rest.split()).replace("``", "") for name, rest in found}
