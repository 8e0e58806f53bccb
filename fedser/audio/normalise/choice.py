"""The rule ``auto``: how much to trust a speaker's own statistics, decided without labels.

Normalising by speaker removes the voice, and with it every emotion that separates speakers. It helps where
each speaker shows many emotions, and erases speakers who show one. Which of the two a site resembles shows
in its features: voices alone account for a fifth or so of the variance of prosodic and spectral descriptors,
so a larger share between speakers means that something else, such as emotion, differs between them.

The between-speaker share ρ is the intraclass correlation of the one-way random-effects model (Searle, Casella
and McCulloch, Variance Components, 1992, ch. 3), averaged over the feature dimensions. κ is 1 up to ρ = TRUSTED
and grows tenfold for each further DECADE. Few speakers say little, so the logarithm of κ is averaged with that
of the configured κ, which weighs as much as PRIOR_SPEAKERS further speakers. docs/normalisation.md has the
figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TRUSTED = 0.22  # up to this share of variance between speakers, voices explain it: κ = 1
DECADE = 0.05  # κ grows tenfold for each further 0.05 …
MOST = 1e4  # … up to here, where a thousand utterances of one speaker still count little
PRIOR_SPEAKERS = 2.0  # weight of the configured κ; n speakers weigh n − 1
OUTLIER = 5.0  # standard deviations at which values are cut before ρ is computed


@dataclass(frozen=True)
class Choice:
    """What ``auto`` decided, and why.

    Attributes:
        kappa: pseudo-utterances of the site's statistics.
        share: ρ, or None where it has no meaning.
        reason: one sentence for reports.
    """

    kappa: float
    share: float | None
    reason: str


def choose(vectors: Tensor, speakers: Sequence[str | None], prior: float = 10.0) -> Choice:
    """Decide κ for one site.

    Args:
        vectors: [N, D] float64, one for each utterance (:func:`fedser.audio.normalise.statistics.profiles`).
        speakers: N speaker ids, None where unknown; unknown speakers have no say.
        prior: κ where nothing can be told from the features.
    """
    share, known = between_speaker_share(vectors, speakers)
    start = math.log10(min(max(prior, 1.0), MOST))
    weight, measured = 0, 0.0
    if share is not None:
        weight = known - 1
        measured = min(max((share - TRUSTED) / DECADE, 0.0), math.log10(MOST))
    exponent = (weight * measured + PRIOR_SPEAKERS * start) / (weight + PRIOR_SPEAKERS)
    kappa = float(f"{10.0**exponent:.3g}")
    return Choice(kappa, share, _reason(share, known, kappa))


def between_speaker_share(vectors: Tensor, speakers: Sequence[str | None]) -> tuple[float | None, int]:
    """Share ρ of the features' variance that lies between speakers, and the number of known speakers.

    ρ is the mean over dimensions of B/(B + W), with W the pooled variance within speakers and B the variance
    between them without the part that W and small groups bring about by chance (the ANOVA estimator, which
    can fall below zero). None where it has no meaning: one speaker, one utterance each, no spread.
    """
    index = [i for i, speaker in enumerate(speakers) if speaker is not None]
    ids = {speaker: k for k, speaker in enumerate(sorted({str(speakers[i]) for i in index}))}
    groups, total = len(ids), len(index)
    if groups < 2 or total <= groups:
        return None, groups
    x = vectors[index]
    std = x.std(dim=0, correction=0)
    alive = std > 1e-9 * (1e-9 + x.mean(dim=0).abs())
    if not bool(alive.any()):
        return None, groups
    z = ((x - x.mean(dim=0)) / std)[:, alive].clamp(-OUTLIER, OUTLIER)
    member = torch.tensor([ids[str(speakers[i])] for i in index])
    counts = torch.bincount(member, minlength=groups).to(z)
    centres = torch.zeros(groups, z.shape[1], dtype=z.dtype).index_add_(0, member, z) / counts[:, None]
    within = (z - centres[member]).square().sum(dim=0) / (total - groups)
    raised = (counts[:, None] * (centres - z.mean(dim=0)).square()).sum(dim=0) / (groups - 1)
    size = (total - counts.square().sum() / total) / (groups - 1)
    between = (raised - within) / size
    whole = between + within
    share = torch.where(whole > 0, between / torch.where(whole > 0, whole, 1.0), 0.0)
    return float(share.mean()), groups


def _reason(share: float | None, known: int, kappa: float) -> str:
    if share is None:
        told = "No speaker is known" if known == 0 else "The speakers cannot be compared"
        told = "Only one speaker is known" if known == 1 else told
        return f"{told}, so the configured pull towards the site's statistics holds (κ = {kappa:g})."
    part = f"{100 * max(share, 0.0):.0f} % of the features' variance lies between the {known} speakers"
    if kappa <= 3:
        so = "no more than voices explain: each speaker's own statistics prevail"
    elif kappa < 100:
        so = "so each speaker's statistics are pulled to the site's"
    else:
        so = "more than voices explain: the site's statistics prevail"
    return f"{part}, {so} (κ = {kappa:g})."
