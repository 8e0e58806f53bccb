"""How a source model meets a target corpus in a benchmark: on all of it, or on speakers held out.

- ``transductive``: adapt on all target utterances and test on the same ones, as the papers do.
- ``inductive``: speaker folds; statistics, bank, guard and adaptation see the other folds only, and a held-out
  speaker is normalised by the site's statistics alone.
- ``inductive_causal``: the same adapted models, but a held-out speaker's statistics grow with that speaker's
  own utterances up to the one that is being answered.

A protocol becomes *views*: what one adaptation may see, and what it is asked afterwards. Views hold no label, and
all methods share them, so that nothing is normalised twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.compute import generator
from fedser.errors import TooLittleDataError

PROTOCOLS = ("transductive", "inductive", "inductive_causal")


@dataclass(frozen=True)
class Query:
    """Utterances that an adapted model is asked about.

    Attributes:
        rows: their places in the target, int64 [n].
        x: normalised features [n, \\*shape].
    """

    rows: Tensor
    x: Tensor


@dataclass(frozen=True)
class View:
    """One adaptation.

    Attributes:
        x: normalised features of the utterances that it sees [N, \\*shape].
        raw: the same, not normalised.
        rows: their places in the target, int64 [N].
        speakers: of these utterances, None where unknown.
        queries: what is asked, by protocol.
    """

    x: Tensor
    raw: Tensor
    rows: Tensor
    speakers: tuple[str | None, ...]
    queries: dict[str, Query]


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


def transductive(target: SpeechData, rule: NormalisationSettings, rows: Sequence[int] | None = None) -> View:
    """Adapt on utterances and ask about the same ones.

    Args:
        target: the target.
        rule: of normalisation.
        rows: of one site, where the target is spread over several; all when None.
    """
    places = torch.arange(len(target)) if rows is None else torch.tensor(rows)
    own = target if rows is None else target.subset(places)
    x = SiteNormaliser.fit(own.raw, own.speakers, rule).transform(own.raw, own.speakers)
    return View(x, own.raw, places, own.speakers, {"transductive": Query(places, x)})


def inductive(
    target: SpeechData, rule: NormalisationSettings, protocols: Sequence[str], *, folds: int, seed: int
) -> list[View]:
    """Adapt on all folds but one and ask about that one's speakers; a view for each fold.

    Args:
        target: the target.
        rule: of normalisation.
        protocols: ``inductive``, ``inductive_causal`` or both.
        folds: how many, at most one a speaker.
        seed: of the folds, and of the order in which held-out utterances arrive.

    Raises:
        TooLittleDataError: fewer than two speakers, or utterances without one.
    """
    parts = speaker_folds(target.speakers, folds, seed)
    return [_fold(target, held, rule, protocols, seed) for held in parts]


def _fold(target: SpeechData, held: Tensor, rule: NormalisationSettings, protocols: Sequence[str], seed: int) -> View:
    outside = set(held.tolist())
    rows = torch.tensor([i for i in range(len(target)) if i not in outside])
    seen, unseen = target.subset(rows), target.subset(held)
    normaliser = SiteNormaliser.fit(seen.raw, seen.speakers, rule)
    queries = {}
    if "inductive" in protocols:
        queries["inductive"] = Query(held, normaliser.transform(unseen.raw, [None] * len(unseen)))
    if "inductive_causal" in protocols:
        arrival = torch.randperm(len(unseen), generator=generator("arrival", seed))
        late = unseen.subset(arrival)
        x = normaliser.transform_causal(late.raw, late.speakers)
        queries["inductive_causal"] = Query(held[arrival], x)
    return View(normaliser.transform(seen.raw, seen.speakers), seen.raw, rows, seen.speakers, queries)
