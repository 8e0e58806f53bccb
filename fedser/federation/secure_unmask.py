"""The end of a masked sum at a site: one list of survivors, and the shares that unmask their sum."""

from __future__ import annotations

from fedser.bundle.keys import verify
from fedser.federation import wire
from fedser.federation.secure_context import list_digest
from fedser.federation.secure_roster import members_of, part
from fedser.federation.secure_schema import Consent, Revealed, Survivors, Unmask
from fedser.federation.secure_state import Revealed as Unmasked
from fedser.federation.secure_state import SecureState
from fedser.privacy.settings import MaskingSettings


def consented(
    site: str, asked: Survivors, state: SecureState, policy: MaskingSettings
) -> tuple[Consent, SecureState] | None:
    """A signature under the first acceptable list of an attempt, and the state with it; None for any other list.

    A site that helped to unmask a round before, in another attempt, signs the same list again and no other: two sums
    of one round over different sites would tell the difference.
    """
    roster, before = state.roster, state.revealed
    if roster is None or not state.task or asked.task != state.task:
        return None
    fits = (
        site in asked.survivors
        and part(asked.survivors, state.senders)
        and len(asked.survivors) >= max(roster.terms.threshold, policy.honest)
        and state.survivors in ((), asked.survivors)
        and (before is None or before.round != state.round or before.survivors == asked.survivors)
    )
    if not fits:
        return None
    digest = list_digest(state.task, asked.survivors)
    said = Consent(protocol=1, site=site, task=state.task, survivors=digest)
    return said, state.model_copy(update={"survivors": asked.survivors})


def revealed(asked: Unmask, state: SecureState) -> tuple[Revealed, SecureState] | None:
    """The shares that unmask the sum over the one list, once enough survivors signed it; None before.

    Of each survivor it is the share of the seed, of each other sender that of the key: never both of one. The shares
    that are not given go from the state, so that whoever gets hold of the sites' disks later learns no more.

    Raises:
        SignatureError: a consent is not its site's.
    """
    roster = state.roster
    digest = list_digest(state.task, state.survivors)
    if (
        roster is None
        or not state.survivors
        or not state.shares
        or (asked.task, asked.survivors) != (state.task, digest)
    ):
        return None
    members, agreed = members_of(roster), dict(asked.consents)
    if len(agreed) != len(asked.consents) or not agreed.keys() <= set(state.survivors):
        return None
    for site, signature in agreed.items():
        said = Consent(protocol=1, site=site, task=state.task, survivors=digest)
        verify(members[site].signer, wire.signed_bytes(said), bytes.fromhex(signature))
    if len(agreed) < roster.terms.threshold:
        return None
    left = [name for name in state.senders if name not in state.survivors]
    told = Revealed(
        protocol=1,
        task=state.task,
        survivors=digest,
        seeds=tuple(state.shares[name][1] for name in state.survivors),
        keys=tuple(state.shares[name][0] for name in left),
    )
    after = {"shares": {}, "revealed": Unmasked(round=state.round, survivors=state.survivors)}
    return told, state.model_copy(update=after)
