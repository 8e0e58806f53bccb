"""The rule ``auto``: how much to trust a speaker's own statistics, decided without labels.

Normalising by speaker removes the voice, and with it every emotion that separates speakers. It helps where
each speaker shows many emotions, and erases speakers who show one. Which of the two a site resembles shows
in its features: voices alone account for a fifth or so of the variance of prosodic and spectral descriptors,
so a larger share between speakers means that something else, such as emotion, differs between them.

The between-speaker share ρ is the intraclass correlation of the one-way random-effects model (Searle, Casella
and McCulloch, Variance Components, 1992, ch. 3), averaged over the feature dimensions. κ grows tenfold for
each ``DECADE`` of ρ. With few speakers ρ is uncertain and is averaged with a prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

TRUSTED = 0.20  # at this share of variance between speakers κ is 1: speakers are normalised by themselves
DECADE = 0.06  # κ grows tenfold for each further 0.06
LEAST, MOST = 1.0, 1e4  # bounds of κ
PRIOR_SHARE = 0.25  # expected share where nothing is known
PRIOR_SPEAKERS = 2.0  # the prior weighs as much as this many further speakers
OUTLIER = 5.0  # standard deviations at which values are cut before ρ is computed


@dataclass(frozen=True)
class Choice:
    """What ``auto`` decided, and why.

    Attributes:
        kappa: pseudo-utterances of the site's statistics.
        share: ρ after the prior.
        reason: one sentence for reports.
    """

    kappa: float
    share: float
    reason: str


def choose(means: Tensor, speakers: Sequence[str | None]) -> Choice:
    """Decide κ for one site.

    Args:
        means: [N, D] float64, each utterance's features (per band means of a spectrogram).
        speakers: N speaker ids, None where unknown; unknown speakers have no say.
    """
    share, known = between_speaker_share(means, speakers)
    weight = max(known - 1, 0) if share is not None else 0
    posterior = (weight * (share or 0.0) + PRIOR_SPEAKERS * PRIOR_SHARE) / (weight + PRIOR_SPEAKERS)
    kappa = float(min(max(10.0 ** ((posterior - TRUSTED) / DECADE), LEAST), MOST))
    kappa = float(f"{kappa:.3g}")
    return Choice(kappa, posterior, _reason(share, known, kappa))


def between_speaker_share(means: Tensor, speakers: Sequence[str | None]) -> tuple[float | None, int]:
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
    x = means[index]
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
        told = "no speakers are known" if known == 0 else f"{known} speakers with too little to compare them"
        told = "one speaker is known" if known == 1 else told
        return f"{told[0].upper()}{told[1:]}, so that κ is the one for an average site, {kappa:g}."
    part = f"{100 * max(share, 0.0):.0f} % of the features' variance lies between the {known} speakers"
    if kappa <= 3:
        so = "little enough to be their voices, so that each speaker's own statistics are used"
    elif kappa < 100:
        so = "so that each speaker's statistics are pulled to the site's"
    else:
        so = "more than voices explain, so that the site's statistics prevail"
    return f"{part}, {so} (κ = {kappa:g}{_doubt(known)})."


def _doubt(known: int) -> str:
    return "" if math.log2(known) > 2 else "; with so few speakers this is held near the average site's"
