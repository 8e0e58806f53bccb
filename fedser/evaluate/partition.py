"""How the target utterances of a simulation are spread over sites. Each utterance goes to exactly one site.

Labels are read by the Dirichlet partition alone, to build the simulated world; no site ever sees one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field

from fedser.audio.utterance import Utterance
from fedser.config import Settings
from fedser.errors import ManifestError, TooLittleDataError


class PartitionSettings(Settings):
    """How utterances become sites.

    Attributes:
        by: ``speaker`` (whole speakers), ``corpus`` (each corpus is a site), ``dirichlet`` (each emotion is
            spread over the sites by shares drawn from Dirichlet(alpha)), ``site`` (the manifest's column).
        speakers: speakers a site, for ``speaker``.
        sites: number of sites, for ``dirichlet``.
        alpha: concentration, for ``dirichlet``; small values give each site few emotions.
        seed: of the Dirichlet draw. It belongs to the world, so all seeds of a run share it.
        smallest: sites with fewer utterances are joined to the smallest other site.
    """

    by: Literal["speaker", "corpus", "dirichlet", "site"] = "speaker"
    speakers: int = Field(default=2, ge=1)
    sites: int = Field(default=5, ge=1)
    alpha: float = Field(default=0.5, gt=0)
    seed: int = 0
    smallest: int = Field(default=8, ge=1)


@dataclass(frozen=True)
class SiteIndex:
    """One site: its name and the positions of its utterances, in rising order."""

    name: str
    index: tuple[int, ...]


def partition(
    utterances: Sequence[Utterance], corpora: Sequence[str], settings: PartitionSettings
) -> tuple[SiteIndex, ...]:
    """Spread utterances over sites.

    Args:
        utterances: all target utterances.
        corpora: the corpus name of each, aligned.

    Raises:
        TooLittleDataError: there is no utterance, or a speaker or emotion that the rule needs is unknown.
        ManifestError: ``by: site`` and an utterance without a site.
    """
    if not utterances:
        raise TooLittleDataError("There is no target utterance to spread over sites.", "Check the target's folder.")
    if settings.by == "speaker":
        groups = _by_speaker(utterances, corpora, settings.speakers)
    elif settings.by == "dirichlet":
        groups = _by_dirichlet(utterances, settings)
    else:
        names = corpora if settings.by == "corpus" else _site_column(utterances)
        groups = _collect(names)
    return _join_small(groups, settings.smallest)


def _by_speaker(utterances: Sequence[Utterance], corpora: Sequence[str], size: int) -> dict[str, list[int]]:
    """Groups of ``size`` speakers, genders mixed as evenly as their order allows; the last may be smaller."""
    genders: dict[tuple[str, str], str] = {}
    for utterance, corpus in zip(utterances, corpora, strict=True):
        if utterance.speaker is None:
            raise TooLittleDataError(
                f"{utterance.path} has no speaker, so sites cannot be made of speakers.",
                "Name speakers in a manifest, or set partition.by=dirichlet.",
            )
        genders.setdefault((corpus, utterance.speaker), utterance.gender or "")
    order = _mixed(genders)
    site_of = {speaker: f"site-{place // size + 1}" for place, speaker in enumerate(order)}
    return _collect(
        [site_of[corpus, u.speaker or ""] for u, corpus in zip(utterances, corpora, strict=True)],
        first=list(site_of.values()),
    )


def _mixed(genders: Mapping[tuple[str, str], str]) -> list[tuple[str, str]]:
    """Speakers in an order that spreads each gender evenly: f1, m1, f2, m2, … where both have as many."""
    places: list[tuple[float, str, tuple[str, str]]] = []
    for gender in sorted(set(genders.values())):
        group = sorted(speaker for speaker, own in genders.items() if own == gender)
        places += [((rank + 0.5) / len(group), gender, speaker) for rank, speaker in enumerate(group)]
    return [speaker for _, _, speaker in sorted(places)]


def _by_dirichlet(utterances: Sequence[Utterance], settings: PartitionSettings) -> dict[str, list[int]]:
    """Each emotion's utterances, shuffled, cut at shares drawn from a symmetric Dirichlet distribution."""
    random = np.random.default_rng(settings.seed)
    groups: dict[str, list[int]] = {f"site-{number + 1}": [] for number in range(settings.sites)}
    for emotion in sorted({utterance.emotion or "" for utterance in utterances}):
        own = random.permutation([place for place, u in enumerate(utterances) if (u.emotion or "") == emotion])
        shares = random.dirichlet([settings.alpha] * settings.sites)
        cuts = np.rint(np.cumsum(shares)[:-1] * len(own)).astype(int)
        for group, part in zip(groups.values(), np.split(own, cuts), strict=True):
            group.extend(int(place) for place in part)
    return groups


def _site_column(utterances: Sequence[Utterance]) -> list[str]:
    names = []
    for utterance in utterances:
        if not utterance.site:
            raise ManifestError(f"{utterance.path} has no site.", "Fill the manifest's column 'site' in every row.")
        names.append(utterance.site)
    return names


def _collect(names: Sequence[str], first: Sequence[str] = ()) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {name: [] for name in (*first, *names)}
    for place, name in enumerate(names):
        groups[name].append(place)
    return groups


def _join_small(groups: Mapping[str, Sequence[int]], smallest: int) -> tuple[SiteIndex, ...]:
    """Join each site below ``smallest`` to the smallest other one, the smallest first; empty sites vanish."""
    sites = {name: sorted(index) for name, index in groups.items() if index}
    while len(sites) > 1:
        name, other = sorted(sites, key=lambda key: (len(sites[key]), key))[:2]
        if len(sites[name]) >= smallest:
            break
        sites[other] = sorted(sites[other] + sites.pop(name))
    return tuple(SiteIndex(name, tuple(index)) for name, index in sites.items())
