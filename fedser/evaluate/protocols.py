"""How a source model meets a target corpus in a benchmark: on all of it, or on speakers held out.

- ``transductive``: adapt on all target utterances and test on the same ones, as the papers do.
- ``inductive``: speaker folds; statistics, bank and adaptation see the other folds only, and a held-out
  speaker is normalised by the site's statistics alone.
- ``inductive_causal``: the same adapted models, but a held-out speaker's statistics grow with that speaker's
  own utterances up to the one that is being answered.

Target labels are read by the metrics and by the target sets that need them to draw a sample, by nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedser.adapt import Method, Schedule, adapt, probabilities
from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator
from fedser.errors import TooLittleDataError
from fedser.evaluate.source import SourceModel
from fedser.models import EmotionClassifier

PROTOCOLS = ("transductive", "inductive", "inductive_causal")
TARGET_SETS = ("all", "dirichlet", "neutral70", "two_emotions")
PER_SPEAKER = 20  # utterances a speaker at most, in the target set `dirichlet`


@dataclass(frozen=True)
class Outcome:
    """Class probabilities [N, C] for all target utterances under one protocol, and the seconds they took."""

    probabilities: Tensor
    seconds: float


def shared_classes(source: SpeechData, target: SpeechData) -> tuple[str, ...]:
    """Emotions that both corpora have, in alphabetical order.

    Raises:
        TooLittleDataError: fewer than two.
    """
    both = {e for e in source.emotions if e} & {e for e in target.emotions if e}
    if len(both) < 2:
        raise TooLittleDataError(
            f"{source.name} and {target.name} share {len(both)} emotions.",
            "Choose corpora that share at least two.",
        )
    return tuple(sorted(both))


def speaker_folds(speakers: Sequence[str | None], folds: int, seed: int) -> list[Tensor]:
    """Divide utterances into folds of whole speakers, of similar size; index tensors.

    Raises:
        TooLittleDataError: fewer than two declared speakers, or utterances without a speaker.
    """
    names = sorted({s for s in speakers if s is not None})
    if len(names) < 2 or any(s is None for s in speakers):
        raise TooLittleDataError(
            "Speaker folds need at least two speakers, and every utterance's speaker.",
            "Name the speakers in the manifest, or choose protocol=transductive.",
        )
    rows = {name: [i for i, s in enumerate(speakers) if s == name] for name in names}
    order = torch.randperm(len(names), generator=generator("folds", seed)).tolist()
    parts: list[list[int]] = [[] for _ in range(min(folds, len(names)))]
    # Larger speakers first, each to the smallest fold; the shuffle decides among equals.
    for place in sorted(order, key=lambda k: -len(rows[names[k]])):
        min(parts, key=len).extend(rows[names[place]])
    return [torch.tensor(sorted(part)) for part in parts]


def target_subset(data: SpeechData, kind: str, seed: int) -> SpeechData:
    """Draw one of the target sets; label shift is what sites have and acted corpora hide.

    ``dirichlet``: at most 20 utterances a speaker, emotions by Dirichlet(0.3) for each speaker; ``neutral70``:
    seven in ten utterances neutral; ``two_emotions``: neutral and anger only.
    """
    if kind == "all":
        return data
    draw = generator("target_set", kind, seed)
    emotions = data.emotions
    if kind == "two_emotions":
        return data.subset([i for i, e in enumerate(emotions) if e in ("neutral", "anger")])
    if kind == "neutral70":
        neutral = [i for i, e in enumerate(emotions) if e == "neutral"]
        other = [i for i, e in enumerate(emotions) if e != "neutral"]
        wanted = max(1, round(len(neutral) * 3 / 7))
        picked = torch.randperm(len(other), generator=draw)[:wanted].tolist()
        return data.subset(sorted(neutral + [other[k] for k in picked]))
    return data.subset(sorted(_dirichlet(data, draw)))


def _dirichlet(data: SpeechData, draw: torch.Generator) -> Iterator[int]:
    classes = sorted({e for e in data.emotions if e})
    shares = np.random.default_rng(draw.initial_seed())
    for speaker in sorted({str(s) for s in data.speakers}):
        rows = [i for i, s in enumerate(data.speakers) if str(s) == speaker]
        share = torch.from_numpy(shares.dirichlet([0.3] * len(classes))).clamp_min(1e-9)
        weights = share[[classes.index(str(data.emotions[i])) for i in rows]]
        yield from (rows[k] for k in torch.multinomial(weights, min(PER_SPEAKER, len(rows)), generator=draw).tolist())


def evaluate(
    source: SourceModel,
    target: SpeechData,
    method: Method,
    schedule: Schedule | None,
    normalisation: NormalisationSettings,
    wanted: Sequence[str],
    *,
    folds: int,
    seed: int,
) -> dict[str, Outcome]:
    """Run one method on one target under the protocols wanted.

    Raises:
        TooLittleDataError: an inductive protocol on fewer than two speakers.
    """
    outcomes = {}
    if "transductive" in wanted:
        begin = time.perf_counter()
        normaliser = SiteNormaliser.fit(target.raw, target.speakers, normalisation)
        x = normaliser.transform(target.raw, target.speakers)
        model = _adapted(source, x, method, schedule, seed)
        outcomes["transductive"] = Outcome(
            probabilities(model, x, _temperature(source, model)), time.perf_counter() - begin
        )
    inductive = [p for p in wanted if p.startswith("inductive")]
    if inductive:
        begin = time.perf_counter()
        parts: dict[str, Tensor] = {}
        for held in speaker_folds(target.speakers, folds, seed):
            for protocol, p in _fold(source, target, held, method, schedule, normalisation, inductive, seed).items():
                parts.setdefault(protocol, torch.zeros(len(target), p.shape[1]))[held] = p
        spent = time.perf_counter() - begin
        outcomes |= {protocol: Outcome(p, spent) for protocol, p in parts.items()}
    return outcomes


def _fold(
    source: SourceModel,
    target: SpeechData,
    held: Tensor,
    method: Method,
    schedule: Schedule | None,
    normalisation: NormalisationSettings,
    wanted: Sequence[str],
    seed: int,
) -> dict[str, Tensor]:
    """Adapt on all speakers but the held-out ones, answer those; probabilities [len(held), C] by protocol."""
    outside = set(held.tolist())
    seen = target.subset([i for i in range(len(target)) if i not in outside])
    unseen = target.subset(held)
    normaliser = SiteNormaliser.fit(seen.raw, seen.speakers, normalisation)
    model = _adapted(source, normaliser.transform(seen.raw, seen.speakers), method, schedule, seed)
    answers = {}
    if "inductive" in wanted:
        x = normaliser.transform(unseen.raw, [None] * len(unseen))
        answers["inductive"] = probabilities(model, x, _temperature(source, model))
    if "inductive_causal" in wanted:
        arrival = torch.randperm(len(unseen), generator=generator("arrival", seed))
        late = unseen.subset(arrival)
        p = probabilities(model, normaliser.transform_causal(late.raw, late.speakers), _temperature(source, model))
        answers["inductive_causal"] = torch.zeros_like(p).index_copy(0, arrival, p)
    return answers


def _adapted(source: SourceModel, x: Tensor, method: Method, schedule: Schedule | None, seed: int) -> nn.Module:
    return adapt(source.model, x, method, schedule, seed=seed, linear=source.linear).model


def _temperature(source: SourceModel, model: nn.Module) -> float:
    """The temperature was calibrated for the classifier; logistic regression needs none."""
    return source.temperature if isinstance(model, EmotionClassifier) else 1.0
