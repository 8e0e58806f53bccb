"""Disjoint groups of privacy units: the keyed hash that assigns them, and the coins that draw units into a step.

A unit is one speaker or one utterance. All coupling between utterances (neighbours, pseudo-labels, negatives) stays
inside a group, and a group gives one clipped gradient. Two forms:

- *alone*: a group is one unit. Without the unit its gradient is missing from the sum, which moves by at most the
  clipping norm: the radius of a gradient is the sensitivity itself.
- *together*: a keyed hash puts units into a public number of groups. Without one unit its group's gradient is another
  one, and two vectors of length R lie up to 2 R apart: the radius is half the sensitivity.

Coins are thrown for each unit by itself, not for each group. With coins for groups, neighbouring data sets would give
the mixtures (1 − q) A + q B₁ and (1 − q) A + q B₀, which the accountant's pair of distributions does not bound
(replacement under Poisson sampling: Lebeda, Regehr, Kamath and Steinke 2024, arXiv 2405.20769). With coins for units
and everything else fixed, they are (1 − q) A + q B and A, the pair that is accounted for.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEY_BYTES = 32


def bucket(identity: str, groups: int, key: bytes) -> int:
    """The group of a unit: HMAC-SHA256 of its id, taken modulo ``groups``; no other unit has a say in it."""
    digest = hmac.digest(key, b"group\0" + identity.encode("utf-8", "surrogatepass"), "sha256")
    return int.from_bytes(digest[:16], "big") % groups  # 128 bits: uneven by less than 2⁻¹⁰⁰


@dataclass(frozen=True)
class Groups:
    """The units of one site and who may be in a loss with whom.

    Attributes:
        units: names of the units.
        rows: of each unit, its utterances' rows.
        group: of each unit, its group's name.
        together: whether a group may hold several units.
    """

    units: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    group: tuple[str, ...]
    together: bool
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, identities: Sequence[str | None], groups: int, key: bytes, *, together: bool) -> Groups:
        """Group utterances.

        Args:
            identities: each utterance's unit; None leaves it out of private training.
            groups: the public number of groups, for ``together``.
            key: secret of the hash.
            together: whether the hash puts several units into a group, or each has its own.
        """
        rows: dict[str, list[int]] = {}
        for row, identity in enumerate(identities):
            if identity is not None:
                rows.setdefault(identity, []).append(row)
        names = tuple(rows)
        assigned = tuple(f"#{bucket(name, groups, key)}" if together else f"={name}" for name in names)
        return cls(names, tuple(tuple(own) for own in rows.values()), assigned, together, key)

    def radius(self, clip: float) -> float:
        """The length to which a group's gradient is cut so that no unit moves the sum by more than ``clip``."""
        return clip / 2 if self.together else clip

    def drawn(self, coins: NDArray[np.bool_]) -> Mapping[str, Sequence[int]]:
        """Rows of each group of the units whose coin shows true; groups without any are missing."""
        found: dict[str, list[int]] = {}
        for unit in np.flatnonzero(coins).tolist():
            found.setdefault(self.group[unit], []).extend(self.rows[unit])
        return found

    def chance(self, group: str, step: int) -> torch.Generator:
        """A generator of one group in one step: what it draws depends on no other group."""
        told = f"views\0{step}\0{group}".encode("utf-8", "surrogatepass")
        seed = int.from_bytes(hmac.digest(self.key, told, "sha256")[:8], "big") >> 1
        return torch.Generator().manual_seed(seed)


def views(x: Tensor, groups: Groups, drawn: Mapping[str, Sequence[int]], size: int, noise: float, step: int) -> Tensor:
    """Give each group exactly ``size`` noisy utterances, from its own alone.

    A larger group gives as many of its utterances, drawn anew in each step. A smaller one gives each utterance several
    times, under fresh noise: augmented views make up for missing negatives.

    Args:
        x: normalised features [N, \\*shape].
        groups: of the site.
        drawn: rows of each group in this step.
        size: S.
        noise: standard deviation of the noise on the features.
        step: number of the step.

    Returns:
        Noisy features [G, S, \\*shape], in the order of ``drawn``.
    """
    added = torch.empty(len(drawn), size, *x.shape[1:])
    picked = []
    for (name, rows), place in zip(drawn.items(), added, strict=True):
        chance, own = groups.chance(name, step), list(rows)
        if len(own) > size:
            own = [own[each] for each in torch.randperm(len(own), generator=chance)[:size].tolist()]
        picked.append((own * -(-size // len(own)))[:size])
        place.normal_(generator=chance)
    index = torch.tensor(picked, dtype=torch.int64, device=x.device).view(len(drawn), size)
    return added.to(x.device).mul_(noise).add_(x[index])
