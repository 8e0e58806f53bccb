"""A site's side of a masked sum: keys, shares, the masked update, one list, and what unmasks its sum.

Whatever the provider does, this side never gives both kinds of share of one peer, signs one list an attempt, helps to
unmask one list a round, and makes one payload an attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.bundle.keys import SigningKey
from fedser.errors import SignatureError, WireError
from fedser.federation import wire
from fedser.federation.layout import tensor_digest
from fedser.federation.schema import Code, Order
from fedser.federation.secure_context import (
    commitment,
    own_seed,
    pair_seed,
    roster_digest,
    sign_of,
    task_digest,
)
from fedser.federation.secure_roster import Shares, acceptable, members_of, part, sealed, unsealed
from fedser.federation.secure_schema import (
    Asked,
    Consent,
    KeysOrder,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Revealed,
    Roster,
    Survivors,
)
from fedser.federation.secure_state import Answer, SecureState
from fedser.federation.secure_unmask import consented, revealed
from fedser.privacy import agreement, masking, shamir
from fedser.privacy.randomness import random_bytes
from fedser.privacy.settings import MaskingSettings

Keep = Callable[[SecureState], None]


class SecureSite:
    """One site in the masked sums of a study.

    Args:
        site: its name.
        policy: of the site's owner; nothing of it comes from the network.
        key: the site's long-term key, which signs all it says.
        state: where it stopped.
        keep: stores the new state (durably, on a node) before an answer leaves.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        site: str,
        policy: MaskingSettings,
        key: SigningKey,
        state: SecureState,
        keep: Keep | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.site = site
        self.state = state
        self._policy = policy
        self._key = key
        self._keep = keep
        self._clock = clock
        self._opened: tuple[str, Shares, list[tuple[bytes, int]]] = ("", {}, [])

    def answer(self, asked: Asked) -> bytes | Code:
        """Answer a message of a masked sum: the signed bytes, or the code why not. A repeat gets the same bytes.

        Raises:
            OutputError: the state cannot be written; nothing may leave then.
        """
        digest = wire.order_digest(asked)
        stored = self.state.stored(digest)
        if stored is not None:
            return stored
        made = self._addressed(asked) or self._answered(asked)
        if isinstance(made, Code):
            return made
        said, state = made
        reply = wire.encode(said, wire.NOTHING, self._key)
        answers = (*state.answers, Answer(request=digest, reply=reply.hex()))
        self.keep(state.model_copy(update={"answers": answers}))
        return reply

    def keep(self, state: SecureState) -> None:
        """Take up a new state, and store it.

        Raises:
            OutputError: it cannot be written.
        """
        if self._keep is not None:
            self._keep(state)
        self.state = state

    def admit(self, order: Order) -> Code | None:
        """Check the masks of an order to train; None when it may be carried out."""
        asked, state = order.masking, self.state
        if order.phase == "finish":
            return None if asked is None else Code.MASK
        if asked is None:
            return Code.MASK if self._policy.required else None
        roster = state.roster
        fits = (
            roster is not None
            and bool(state.seed)
            and (order.study, order.round, order.attempt) == (state.study, state.round, state.attempt)
            and asked.roster == roster_digest(roster)
            and asked.terms == roster.terms
            and order.encoding == "f32"
            and self.site in asked.senders
            and part(asked.senders, [member.site for member in roster.members])
            and len(asked.senders) >= roster.terms.threshold
            and len(asked.boxes) == len(asked.senders) - 1
        )
        if roster is None or not fits:
            return Code.MASK
        try:
            private = bytes.fromhex(state.encryption)
            opened = unsealed(roster, self.site, private, asked.senders, asked.boxes)
            pairs = list(self._pairs(task_digest(order), asked.senders))
            self._opened = (wire.order_digest(order), opened, pairs)
        except WireError:
            return Code.MASK
        return None

    def masked(self, order: Order, integers: NDArray[np.int64]) -> tuple[MaskedUpdate, Tensor, SecureState]:
        """The update under its masks, for an order that was admitted.

        Args:
            order: the order.
            integers: int64 [P], clipped, on the grid and noised as the policy wants it.

        Returns:
            The message, its tensor (uint32 or uint64 [P]), and the state to keep before it leaves.

        Raises:
            WireError: the order was not admitted.
        """
        digest, shares, pairs = self._opened
        if order.masking is None or digest != wire.order_digest(order) or not self.state.seed:
            raise WireError("The order's masks were not admitted.", "Nothing leaves.")
        task, senders, bits = task_digest(order), order.masking.senders, order.masking.terms.modulus
        own_mask = own_seed(bytes.fromhex(self.state.seed), task, self.site)
        payload = masking.masked(integers, bits, own_mask, pairs)
        flat = torch.from_numpy(payload)
        update = MaskedUpdate(protocol=1, order_digest=digest, tensor_digest=tensor_digest(flat), modulus=bits)
        own = self.state.shares[self.site]
        gone = {"encryption": "", "agreement": "", "seed": ""}
        after = {"task": task, "senders": senders, "shares": {**shares, self.site: own}}
        return update, flat, self.state.model_copy(update=gone | after)

    def _pairs(self, task: str, senders: Iterable[str]) -> Iterable[tuple[bytes, int]]:
        private, members = bytes.fromhex(self.state.agreement), members_of(self.state.roster)
        for peer in senders:
            if peer != self.site:
                seed = pair_seed(private, members[peer].agreement, task, (self.site, peer))
                yield seed, sign_of(self.site, peer)

    def _addressed(self, asked: Asked) -> Code | None:
        if asked.expires < self._clock():
            return Code.EXPIRED
        if asked.site != self.site:
            return Code.OTHER_SITE
        if asked.study != self.state.study:
            return Code.OTHER_STUDY
        now, known = (asked.round, asked.attempt), (self.state.round, self.state.attempt)
        if isinstance(asked, KeysOrder):
            return Code.STALE if now <= known else None
        return Code.STALE if now < known else Code.MASK if now > known else None

    def _answered(self, asked: Asked) -> Code | tuple[MaskKeys | MaskShares | Consent | Revealed, SecureState]:
        try:
            if isinstance(asked, KeysOrder):
                return self._made_keys(asked)
            if isinstance(asked, Roster):
                return self._shared(asked)
            if isinstance(asked, Survivors):
                return consented(self.site, asked, self.state, self._policy) or Code.MASK
            return revealed(asked, self.state) or Code.MASK
        except (SignatureError, WireError):
            return Code.MASK

    def _made_keys(self, asked: KeysOrder) -> tuple[MaskKeys, SecureState]:
        """Fresh keys and a fresh seed; those of an attempt before are dropped."""
        encryption, agreed, seed = agreement.private_key(), agreement.private_key(), random_bytes(shamir.SECRET_BYTES)
        said = MaskKeys(
            protocol=1,
            study=asked.study,
            round=asked.round,
            attempt=asked.attempt,
            site=self.site,
            terms=asked.terms,
            encryption=agreement.public_key(encryption).hex(),
            agreement=agreement.public_key(agreed).hex(),
            commitment=commitment(seed),
        )
        state = SecureState(
            study=asked.study,
            round=asked.round,
            attempt=asked.attempt,
            encryption=encryption.hex(),
            agreement=agreed.hex(),
            seed=seed.hex(),
            revealed=self.state.revealed,
        )
        return said, state

    def _shared(self, roster: Roster) -> Code | tuple[MaskShares, SecureState]:
        """A box for each peer, once the roster was found to be acceptable."""
        own = self._said_keys()
        if self.state.roster is not None or not acceptable(roster, own, self._key.public_hex, self._policy):
            return Code.MASK
        secrets = (bytes.fromhex(text) for text in (self.state.encryption, self.state.agreement, self.state.seed))
        boxes, shares = sealed(roster, self.site, *secrets)
        said = MaskShares(protocol=1, roster=roster_digest(roster), boxes=boxes)
        return said, self.state.model_copy(update={"roster": roster, "shares": shares})

    def _said_keys(self) -> MaskKeys | None:
        """What this site said of its keys in this attempt."""
        for answer in self.state.answers:
            message = wire.read(bytes.fromhex(answer.reply), self._key.public_hex).message
            if isinstance(message, MaskKeys):
                return message
        return None
