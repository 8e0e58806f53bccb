"""From labelled corpora to a bundle's header and tensors: each corpus is normalised inside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedser import console
from fedser.audio import features
from fedser.audio.dataset import SpeechData, join
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.bundle import BundleHeader, SigningKey
from fedser.errors import TooLittleDataError, UsageError
from fedser.models import ModelSettings
from fedser.provenance import revision, versions
from fedser.train.calibrate import uar
from fedser.train.copies import augmented
from fedser.train.linear import fit_linear
from fedser.train.model import Trained, train_model
from fedser.train.settings import TrainSettings


@dataclass(frozen=True)
class Source:
    """What :func:`fedser.bundle.write` needs, and how the training went."""

    header: BundleHeader
    tensors: dict[str, Tensor]
    trained: Trained


@dataclass(frozen=True)
class _Examples:
    """Normalised features [N, *shape], class numbers, speakers and corpora of the training set, row by row."""

    x: Tensor
    y: Tensor
    speakers: tuple[str | None, ...]
    corpora: tuple[str, ...]
    original: Tensor


def train_bundle(
    corpora: Mapping[str, SpeechData],
    *,
    key: SigningKey,
    name: str,
    licence: str,
    version: int = 1,
    classes: Sequence[str] | None = None,
    model: ModelSettings | None = None,
    settings: TrainSettings | None = None,
    normalisation: NormalisationSettings | None = None,
    seed: int = 0,
    device: torch.device = torch.device("cpu"),
) -> Source:
    """Train a source model on one or several labelled corpora.

    Args:
        corpora: by name; utterances without a label among ``classes`` are left out.
        key: of the provider.
        name: of the bundle.
        licence: terms of the weights, as the header states them.
        version: of the bundle.
        classes: emotions to tell apart; all that occur, in alphabetical order, without one.
        model: what the classifier looks like.
        settings: the recipe.
        normalisation: the rule inside each corpus.
        seed: of everything random.
        device: to train on.

    Raises:
        TooLittleDataError: fewer than two emotions with two utterances each.
        UsageError: a class that no corpus has, or corpora with different features.
        ConfigError: the encoder does not take these features.
    """
    model, settings = model or ModelSettings(), settings or TrainSettings()
    normalisation = normalisation or NormalisationSettings()
    chosen = tuple(classes) if classes is not None else all_emotions(list(corpora.values()))
    used = {corpus: with_emotions(data, chosen) for corpus, data in corpora.items()}
    _check_classes(chosen, used)
    examples = _examples(used, chosen, normalisation, settings, seed, device)
    with console.progress("training", 2 * settings.epochs) as step:
        trained = train_model(
            examples.x,
            examples.y,
            examples.speakers,
            chosen,
            model,
            settings,
            seed,
            device,
            on_epoch=step,
            original=examples.original,
        )
    everything = join([replace(data, name=corpus) for corpus, data in used.items()])
    statistics = SiteNormaliser.fit(everything.raw, everything.speakers, normalisation)
    tensors = {f"model.{entry}": tensor for entry, tensor in trained.model.state_dict().items()}
    stored = statistics.tensors(with_speakers=False)
    tensors |= {f"statistics.{entry}": tensor for entry, tensor in stored.items()}
    linear = everything.raw.dim() == 2
    if linear:
        peer = fit_linear(examples.x, examples.y, chosen)
        tensors |= {f"linear.{entry}": tensor for entry, tensor in peer.state_dict().items()}
    header = BundleHeader(
        name=name,
        version=version,
        signer=key.public_hex,
        classes=chosen,
        features=everything.features,
        feature_version=features.version(everything.features),
        normalisation=normalisation,
        statistics=statistics.header(with_speakers=False),
        model=model,
        shape=tuple(everything.raw.shape[1:]),
        adaptable=trained.model.adaptable(),
        temperature=trained.temperature,
        corpora=tuple(used),
        licence=licence,
        uar=_uar_per_corpus(trained, examples),
        validation=trained.validation,
        training=settings.model_dump(mode="json") | {"epochs_trained": trained.epochs},
        seed=seed,
        versions=versions(),
        revision=revision(),
        linear=linear,
    )
    return Source(header, {name: tensor.detach() for name, tensor in tensors.items()}, trained)


def all_emotions(parts: Sequence[SpeechData]) -> tuple[str, ...]:
    """Every emotion that occurs, in alphabetical order."""
    return tuple(sorted({emotion for part in parts for emotion in part.emotions if emotion is not None}))


def with_emotions(data: SpeechData, classes: Sequence[str]) -> SpeechData:
    """The utterances that carry one of the emotions."""
    return data.subset(data.labels(classes) >= 0)


def renamed(data: SpeechData, mapping: Mapping[str, str]) -> SpeechData:
    """The same data with emotions renamed, for instance ``{"calm": "neutral"}``."""
    utterances = tuple(
        replace(u, emotion=mapping.get(u.emotion, u.emotion)) if u.emotion is not None else u for u in data.utterances
    )
    return replace(data, utterances=utterances)


def _check_classes(classes: Sequence[str], used: Mapping[str, SpeechData]) -> None:
    empty = [corpus for corpus, data in used.items() if len(data) == 0]
    if empty or not used:
        wanted = ", ".join(classes) or "any emotion"
        raise TooLittleDataError(
            f"{', '.join(empty) or 'The training set'} has no recording labelled {wanted}.",
            "Check the labels with 'fedser corpus scan', or change --classes.",
        )
    absent = set(classes) - set(all_emotions(list(used.values())))
    if absent:
        raise UsageError(
            f"No corpus has recordings of {', '.join(sorted(absent))}.",
            "Leave these emotions out of --classes, or add recordings.",
        )


def _examples(
    used: Mapping[str, SpeechData],
    classes: Sequence[str],
    normalisation: NormalisationSettings,
    settings: TrainSettings,
    seed: int,
    device: torch.device,
) -> _Examples:
    """All corpora and their augmented copies; each set of copies is normalised as a site of its own would be."""
    sets: list[tuple[str, SpeechData, bool]] = [(corpus, data, True) for corpus, data in used.items()]
    for kind in settings.augment:
        for corpus, data in used.items():
            sets.append((corpus, augmented(data, kind, seed, device), False))
    x = [
        SiteNormaliser.fit(data.raw, data.speakers, normalisation).transform(data.raw, data.speakers)
        for _, data, _ in sets
    ]
    return _Examples(
        torch.cat(x),
        torch.cat([data.labels(classes) for _, data, _ in sets]),
        tuple(None if s is None else f"{corpus}/{s}" for corpus, data, _ in sets for s in data.speakers),
        tuple(corpus for corpus, data, _ in sets for _ in range(len(data))),
        torch.cat([torch.full((len(data),), original) for _, data, original in sets]),
    )


def _uar_per_corpus(trained: Trained, examples: _Examples) -> dict[str, float]:
    """UAR of each corpus' own utterances, each judged by a model that never heard its speaker."""
    judged = torch.isfinite(trained.held_out_logits).all(1) & examples.original
    found = {}
    for corpus in dict.fromkeys(examples.corpora):
        rows = judged & torch.tensor([name == corpus for name in examples.corpora])
        if bool(rows.any()):
            found[corpus] = uar(trained.held_out_logits[rows].argmax(1), examples.y[rows])
    return found
