"""The provider's sum: masked updates taken in one at a time, and the masks that are left taken off the total.

Nothing here holds one site's integers: what comes in is masked, what is kept is the total, and the seeds that are
recovered are the survivors' own ones and, of the others, those of the masks that the total still has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fedser.federation.schema import Terms
from fedser.federation.secure_context import commitment, own_seed, pair_seed, sign_of
from fedser.federation.secure_schema import Member, Revealed, Roster
from fedser.privacy import agreement, masking, shamir


class MaskedSum:
    """A sum modulo a power of two that grows update by update.

    Args:
        size: P.
        terms: of the round.
    """

    def __init__(self, size: int, terms: Terms) -> None:
        self.total = np.zeros(size, dtype=masking.TYPES[terms.modulus])
        self.sites: list[str] = []
        self._terms = terms

    def add(self, site: str, payload: Tensor) -> None:
        """Take in a masked update, uint32 or uint64 [P]."""
        masking.add(self.total, payload.numpy())
        self.sites.append(site)

    def unmask(self, task: str, roster: Roster, senders: Sequence[str], revealed: Mapping[str, Revealed]) -> None:
        """Take the masks off.

        Args:
            task: digest of the task.
            roster: of the round.
            senders: between which there are masks, in the roster's order.
            revealed: what each site revealed, over the list of :attr:`sites` in the roster's order.

        Raises:
            WireError: too few shares, or shares that do not belong together; the total is of no use then.
        """
        members = {member.site: member for member in roster.members}
        places = {member.site: place for place, member in enumerate(roster.members, 1)}
        survivors = [name for name in senders if name in self.sites]
        left = [name for name in senders if name not in self.sites]
        for number, site in enumerate(survivors):
            shares = {places[holder]: bytes.fromhex(told.seeds[number]) for holder, told in revealed.items()}
            seed = shamir.recover(shares, self._terms.threshold, partial(_is_seed, members[site]))
            masking.add_stream(self.total, own_seed(seed, task, site), -1)
        for number, site in enumerate(left):
            shares = {places[holder]: bytes.fromhex(told.keys[number]) for holder, told in revealed.items()}
            key = shamir.recover(shares, self._terms.threshold, partial(_is_key, members[site]))
            for peer in survivors:
                seed = pair_seed(key, members[peer].agreement, task, (site, peer))
                masking.add_stream(self.total, seed, -sign_of(peer, site))

    def mean(self) -> Tensor:
        """The mean of the updates, float32 [P], once the masks are off."""
        scale = 2.0**-self._terms.grid / len(self.sites)
        return torch.from_numpy((masking.from_ring(self.total) * scale).astype(np.float32))


def _is_seed(member: Member, found: bytes) -> bool:
    return commitment(found) == member.commitment


def _is_key(member: Member, found: bytes) -> bool:
    return agreement.public_key(found).hex() == member.agreement
