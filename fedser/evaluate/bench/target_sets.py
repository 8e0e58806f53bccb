"""What is taken of a target corpus: all of it, or a sample that looks like a site rather than like a corpus.

Acted corpora hide what sites have: shares of emotions that differ between speakers (``dirichlet``, ``neutral70``,
``two_emotions``), emotions that the source never heard (``unfiltered``), lines and codecs (``telephone``), and very
little speech (``small``). Labels are read to draw the sample, by nothing that adapts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedser.audio.dataset import SpeechData
from fedser.compute import generator

TARGET_SETS = (
    *("all", "dirichlet", "neutral70", "two_emotions"),
    *("unfiltered", "telephone", "small", "nonspeech"),
)
PER_SPEAKER = 20  # utterances a speaker at most, in `dirichlet`
SITE = 10  # utterances of a site, in `small`
SITES = 20  # of them at most: each is adapted by itself
CALM = ("neutral", "anger")  # what remains in `two_emotions`


@dataclass(frozen=True)
class TargetSet:
    """Utterances of a target, and how they are spread.

    Attributes:
        data: the utterances; those of emotions that the source does not know have no class.
        sites: rows of each site; None where all utterances are one site's.
    """

    data: SpeechData
    sites: tuple[tuple[int, ...], ...] | None = None


def draw(data: SpeechData, kind: str, classes: Sequence[str], seed: int) -> TargetSet:
    """Draw one of the target sets from a labelled corpus.

    Args:
        data: the whole corpus; for ``telephone`` its degraded form.
        kind: one of :data:`TARGET_SETS` but ``nonspeech``, which needs no corpus.
        classes: those that the source knows.
        seed: of the sample.
    """
    if kind == "unfiltered":
        return TargetSet(data.subset([i for i, emotion in enumerate(data.emotions) if emotion is not None]))
    known = data.subset([i for i, emotion in enumerate(data.emotions) if emotion in classes])
    if kind == "small":
        groups = small_sites(known, seed)
        ends = np.cumsum([len(group) for group in groups]).tolist()
        places = tuple(tuple(range(end - len(group), end)) for group, end in zip(groups, ends, strict=True))
        return TargetSet(known.subset([row for group in groups for row in group]), places)
    return TargetSet(target_subset(known, kind, seed))


def obstacle(kind: str, classes: Sequence[str]) -> str | None:
    """Why a target set cannot be drawn with these classes, as one clause; None where it can."""
    missing = {"two_emotions": set(CALM), "neutral70": {"neutral"}}.get(kind, set()) - set(classes)
    return f"{' and '.join(sorted(missing))} not among the shared emotions" if missing else None


def target_subset(data: SpeechData, kind: str, seed: int) -> SpeechData:
    """Draw a sample with a label shift.

    ``dirichlet``: at most 20 utterances a speaker, emotions by Dirichlet(0.3) for each speaker; ``neutral70``:
    seven in ten utterances neutral; ``two_emotions``: neutral and anger only; all utterances otherwise.
    """
    if kind not in ("dirichlet", "neutral70", "two_emotions"):
        return data
    source = generator("target_set", kind, seed)
    emotions = data.emotions
    if kind == "two_emotions":
        return data.subset([i for i, e in enumerate(emotions) if e in CALM])
    if kind == "neutral70":
        neutral = [i for i, e in enumerate(emotions) if e == "neutral"]
        other = [i for i, e in enumerate(emotions) if e != "neutral"]
        wanted = max(1, round(len(neutral) * 3 / 7))
        picked = torch.randperm(len(other), generator=source)[:wanted].tolist()
        return data.subset(sorted(neutral + [other[k] for k in picked]))
    return data.subset(sorted(_dirichlet(data, source)))


def _dirichlet(data: SpeechData, source: torch.Generator) -> Iterator[int]:
    classes = sorted({e for e in data.emotions if e})
    shares = np.random.default_rng(source.initial_seed())
    for speaker in sorted({str(s) for s in data.speakers}):
        rows = [i for i, s in enumerate(data.speakers) if str(s) == speaker]
        share = torch.from_numpy(shares.dirichlet([0.3] * len(classes))).clamp_min(1e-9)
        weights = share[[classes.index(str(data.emotions[i])) for i in rows]]
        yield from (rows[k] for k in torch.multinomial(weights, min(PER_SPEAKER, len(rows)), generator=source).tolist())


def small_sites(data: SpeechData, seed: int) -> list[list[int]]:
    """Sites of ten utterances of one speaker, twenty of them at most; no label is read.

    Each speaker's utterances are shuffled and cut into tens; a rest of fewer than ten is left out unless the speaker
    has no more. Utterances without a speaker count as one speaker's.
    """
    source = generator("target_set", "small", seed)
    sites = []
    for speaker in sorted({str(s) for s in data.speakers}):
        rows = [i for i, s in enumerate(data.speakers) if str(s) == speaker]
        order = [rows[k] for k in torch.randperm(len(rows), generator=source).tolist()]
        whole = max(1, len(order) // SITE)
        sites += [sorted(order[k * SITE : (k + 1) * SITE]) for k in range(whole)]
    chosen = torch.randperm(len(sites), generator=source)[:SITES].tolist()
    return [sites[k] for k in sorted(chosen)]
