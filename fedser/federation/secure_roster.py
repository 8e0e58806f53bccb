"""What a site demands of a masked sum's roster, by its own policy, and the boxes that it seals for the members."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fedser.bundle.keys import fingerprint, verify
from fedser.errors import WireError
from fedser.federation import wire
from fedser.federation.secure_context import box_context, box_key, keys_of, roster_digest
from fedser.federation.secure_schema import MaskKeys, Member, Roster
from fedser.privacy import agreement, shamir
from fedser.privacy.settings import MaskingSettings

Shares = dict[str, tuple[str, str]]  # by site, in hexadecimal: of its agreement key, and of its seed


def acceptable(roster: Roster, own: MaskKeys | None, signer: str, policy: MaskingSettings) -> bool:
    """Whether a roster is one that a site may take part in.

    Args:
        roster: as the provider shows it.
        own: what the site said of its own keys.
        signer: the site's long-term public key, in hexadecimal.
        policy: the site's.

    Raises:
        SignatureError: a member's keys are not signed by it.
    """
    members, threshold = roster.members, roster.terms.threshold
    names = [member.site for member in members]
    keys = {key for member in members for key in (member.encryption, member.agreement)}
    if names != sorted(set(names)) or len({m.signer for m in members}) < len(names) or len(keys) < 2 * len(names):
        return False
    mine = members_of(roster).get(own.site) if own else None
    if mine is None or mine.signer != signer or keys_of(roster, mine) != own:
        return False
    if not least(len(members), policy) <= threshold <= len(members):
        return False
    peers = [member for member in members if member is not mine]
    if policy.peers and any(policy.peers.get(peer.site) != fingerprint(peer.signer) for peer in peers):
        return False
    for member in members:
        verify(member.signer, wire.signed_bytes(keys_of(roster, member)), bytes.fromhex(member.signature))
    return True


def least(members: int, policy: MaskingSettings) -> int:
    """The smallest threshold that a policy accepts: two different lists of survivors can't both reach it.

    With more than half of the members that holds as long as each answers one list; where less than a third of them
    may sign two (``active``), it takes more than two thirds. Bonawitz et al. 2017, section 6.
    """
    share = 2 * members // 3 if policy.active else members // 2
    return max(share + 1, policy.honest)


def members_of(roster: Roster | None) -> Mapping[str, Member]:
    """A roster's members by name."""
    return {member.site: member for member in roster.members} if roster else {}


def part(names: tuple[str, ...], of: Iterable[str]) -> bool:
    """Whether names are some of the others, each once and in their order."""
    chosen = set(names)
    return len(chosen) == len(names) and tuple(name for name in of if name in chosen) == names


def sealed(roster: Roster, site: str, private: bytes, key: bytes, seed: bytes) -> tuple[tuple[str, ...], Shares]:
    """Share a site's key and seed: a box for each other member in the roster's order, and the site's own share.

    Args:
        roster: who gets a share.
        site: whose secrets these are.
        private: its encryption key.
        key: its agreement key, 32 bytes.
        seed: of its own mask, 32 bytes.

    Raises:
        WireError: a member's public key is none.
    """
    digest, count, threshold = roster_digest(roster), len(roster.members), roster.terms.threshold
    boxes, own = [], {}
    shares = zip(shamir.split(key, threshold, count), shamir.split(seed, threshold, count), strict=True)
    for member, (of_key, of_seed) in zip(roster.members, shares, strict=True):
        if member.site == site:
            own[site] = (of_key.hex(), of_seed.hex())
            continue
        context = box_context(digest, site, member.site)
        boxes.append(agreement.seal(box_key(private, member.encryption, context), of_key + of_seed, context).hex())
    return tuple(boxes), own


def unsealed(roster: Roster, site: str, private: bytes, senders: Iterable[str], boxes: Iterable[str]) -> Shares:
    """The shares of each sender but the site itself.

    Raises:
        WireError: a box was altered, comes from another round or sender, or holds no shares.
    """
    digest, members, found = roster_digest(roster), members_of(roster), {}
    for sender, box in zip((name for name in senders if name != site), boxes, strict=True):
        context = box_context(digest, sender, site)
        key = box_key(private, members[sender].encryption, context)
        plain = agreement.unseal(key, bytes.fromhex(box), context)
        of_key, of_seed = plain[: shamir.SHARE_BYTES], plain[shamir.SHARE_BYTES :]
        if not (shamir.is_share(of_key) and shamir.is_share(of_seed)):
            raise WireError("A sealed box holds no shares.", "Its sender is not to be trusted.")
        found[sender] = (of_key.hex(), of_seed.hex())
    return found
