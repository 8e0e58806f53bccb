"""What a site keeps: the adapted model together with the site's own statistics, in one local file.

The file is safetensors with one JSON entry, like a bundle, but unsigned: it never leaves the site. Speakers'
statistics are inside, so it is written for its owner only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialise
from torch import Tensor, nn

from fedser.adapt.probabilities import probabilities
from fedser.audio import features
from fedser.audio.features import FeatureSettings
from fedser.audio.normalise import SiteNormaliser
from fedser.bundle import Bundle
from fedser.bundle.container import METADATA_KEY, header_text
from fedser.config import Settings, validate
from fedser.errors import BundleFormatError, ConfigError, UsageError
from fedser.files import write_bytes
from fedser.models import EmotionClassifier, LinearClassifier, ModelSettings

SCHEMA_VERSION = 1
MAX_BYTES = 1 << 30
UNKNOWN = "unknown"


class SiteHeader(Settings):
    """Everything about an adapted model that is not a tensor.

    Attributes:
        bundle: name of the source bundle, with its version and the hash of its file.
        classes: the order of the logits.
        allowed: the classes that the site has; the others are never answered.
        kind: ``classifier``, or ``linear`` for logistic regression.
        temperature: divides the logits.
        unknown_below: answers of a smaller confidence are ``unknown``.
        method: what adapted it, with its options.
        whose: whether the statistics are the site's or, in a model that was never adapted, the source's.
        normaliser: the header of those statistics.
    """

    schema_version: Literal[1] = 1
    bundle: str
    bundle_version: int
    bundle_digest: str
    classes: tuple[str, ...] = Field(min_length=2)
    allowed: tuple[str, ...] = Field(min_length=1)
    features: FeatureSettings
    feature_version: str
    model: ModelSettings
    shape: tuple[PositiveInt, ...]
    kind: Literal["classifier", "linear"]
    temperature: float = Field(gt=0)
    unknown_below: float = Field(default=0.0, ge=0, le=1)
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    whose: Literal["site", "source"] = "site"
    normaliser: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """Predictions for N utterances.

    Attributes:
        emotions: the answers, ``unknown`` where the confidence is below the site's threshold.
        confidences: probability of the likeliest class, calibrated on the source's held-out speakers.
        probabilities: [N, C], in the order of the model's classes.
        statistics: for each utterance, which statistics normalised it.
    """

    emotions: tuple[str, ...]
    confidences: tuple[float, ...]
    probabilities: Tensor
    statistics: tuple[str, ...]


@dataclass(frozen=True)
class SiteModel:
    """A model that is ready to answer at one site."""

    header: SiteHeader
    model: nn.Module
    normaliser: SiteNormaliser

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> SiteModel:
        """The source model as published, with the source's statistics: for recordings that belong to no site."""
        return cls.adapted(bundle, bundle.classifier(), bundle.normaliser(), method="source", whose="source")

    @classmethod
    def adapted(
        cls,
        bundle: Bundle,
        model: nn.Module,
        normaliser: SiteNormaliser,
        *,
        method: str,
        options: Mapping[str, Any] | None = None,
        allowed: Sequence[str] | None = None,
        unknown_below: float = 0.0,
        seed: int = 0,
        whose: Literal["site", "source"] = "site",
    ) -> SiteModel:
        """A bundle's model after adaptation, with everything that its answers need.

        Args:
            bundle: where the model comes from.
            model: adapted, on the CPU.
            normaliser: with the statistics of the speech that it was adapted to.
            method, options: what adapted it.
            allowed: the emotions that the site has; all of the bundle's when None.
            unknown_below: confidence below which the answer is ``unknown``.
            seed: of everything that was drawn.
            whose: the statistics' owner.
        """
        known = bundle.header
        linear = isinstance(model, LinearClassifier)
        header = SiteHeader(
            bundle=known.name,
            bundle_version=known.version,
            bundle_digest=bundle.digest,
            classes=known.classes,
            allowed=tuple(allowed or known.classes),
            features=known.features,
            feature_version=known.feature_version,
            model=known.model,
            shape=known.shape,
            kind="linear" if linear else "classifier",
            # The temperature was calibrated for the classifier; logistic regression needs none.
            temperature=1.0 if linear else known.temperature,
            unknown_below=unknown_below,
            method=method,
            options=dict(options or {}),
            seed=seed,
            whose=whose,
            normaliser=normaliser.header(),
        )
        return cls(header, model, normaliser)

    @property
    def class_mask(self) -> Tensor:
        """Bool [C], true for the classes that the site has."""
        return class_mask(self.header.classes, self.header.allowed)

    def answer(self, raw: Tensor, speakers: Sequence[str | None], *, update: bool = False) -> Answer:
        """Predict from raw features.

        Args:
            raw: [N, *shape], not normalised.
            speakers: N ids; unknown ones get the site's statistics.
            update: take each utterance into its speaker's statistics before it is answered, in this order,
                so that later ones profit; an utterance never profits from a later one.
        """
        if update:
            rows, used = [], []
            for i, speaker in enumerate(speakers):
                self.normaliser.observe(raw[i : i + 1], speaker)
                rows.append(self.normaliser.transform(raw[i : i + 1], [speaker]))
                used.append(self._statistics_for(speaker))
            x = torch.cat(rows)
        else:
            x = self.normaliser.transform(raw, speakers)
            used = [self._statistics_for(speaker) for speaker in speakers]
        place = next(self.model.parameters()).device
        x = x.to(place)
        p = probabilities(self.model, x, self.header.temperature, self.class_mask.to(place)).cpu()
        confidence, best = p.max(dim=1)
        emotions = tuple(
            self.header.classes[k] if c >= self.header.unknown_below else UNKNOWN
            for k, c in zip(best.tolist(), confidence.tolist(), strict=True)
        )
        return Answer(emotions, tuple(confidence.tolist()), p, tuple(used))

    def _statistics_for(self, speaker: str | None) -> str:
        told = self.normaliser.statistics_for(speaker)
        return told.replace("site", "source") if self.header.whose == "source" else told

    def save(self, path: Path) -> None:
        """Write the model, its settings and the site's statistics to one owner-only file.

        Raises:
            OutputError: the place cannot be written.
        """
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"normaliser.{name}": value for name, value in self.normaliser.tensors().items()}
        header = self.header.model_copy(update={"normaliser": self.normaliser.header()})
        plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        write_bytes(path, serialise(plain, metadata={METADATA_KEY: header.model_dump_json()}), mode=0o600)

    @classmethod
    def load(cls, path: Path) -> SiteModel:
        """Read a model written by :meth:`save`.

        Raises:
            BundleFormatError: no such file, damaged, or made for other features.
        """
        try:
            if path.stat().st_size > MAX_BYTES:
                raise BundleFormatError(f"{path} is larger than any model of fedser.", "Name an adapted model's file.")
            data = path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise BundleFormatError(
                f"{path} cannot be read: {reason}.",
                "Name a folder of 'fedser adapt', or a site's state folder whose study is finished.",
            ) from None
        try:
            header = validate(SiteHeader, header_text(data), f"the header of {path}")
            tensors = parse(data)
        except BundleFormatError:  # its words are a bundle's: fetch it again
            raise BundleFormatError(f"{path} is no adapted model, or it is damaged.", "Adapt again.") from None
        except (ConfigError, SafetensorError) as error:
            raise BundleFormatError(f"{path} is no adapted model: {error}", "Adapt again.") from None
        if header.feature_version != features.version(header.features):
            raise BundleFormatError(f"{path} was made with another version of the features.", "Adapt again.")
        model: nn.Module
        if header.kind == "linear":
            model = LinearClassifier(header.shape[0], header.classes)
        else:
            model = EmotionClassifier(header.model, header.shape, header.classes)
        try:
            model.load_state_dict(_part(tensors, "model."))
        except RuntimeError:
            raise BundleFormatError(f"{path} lacks tensors, or they do not fit.", "Adapt again.") from None
        normaliser = SiteNormaliser.restore(_part(tensors, "normaliser."), header.normaliser)
        return cls(header, model.eval(), normaliser)


def class_mask(classes: Sequence[str], allowed: Sequence[str]) -> Tensor:
    """Bool [C]: which of the model's classes a site has.

    Raises:
        UsageError: a name that the model does not know, or none at all.
    """
    strangers = [name for name in allowed if name not in classes]
    if strangers or not allowed:
        named = f"The model does not know {', '.join(strangers)}." if strangers else "No emotion is allowed."
        raise UsageError(named, f"Choose from: {', '.join(classes)}.")
    return torch.tensor([name in allowed for name in classes])


def check_threshold(unknown_below: float) -> None:
    """Refuse a confidence that is none; written so that NaN is refused too.

    Raises:
        UsageError: not from 0 to 1.
    """
    if not 0 <= unknown_below <= 1:
        raise UsageError(f"{unknown_below} is no confidence.", "Give --unknown-below a number from 0 to 1.")


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
