"""The provider's side of a masked sum: five exchanges over any transport, and the sum at the end.

A site that falls silent or refuses is left out from then on; the sum is that of the sites whose masked update came,
and comes out as long as ``threshold`` sites are left at every step. Nothing of an attempt is stored: a provider that
was cut off begins another attempt, with new keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypedDict, TypeVar

from torch import Tensor

from fedser.errors import QuorumError, WireError
from fedser.federation import wire
from fedser.federation.layout import elements, norm
from fedser.federation.schema import Masked, Refusal, Terms
from fedser.federation.secure_context import list_digest, roster_digest, task_digest
from fedser.federation.secure_schema import (
    Consent,
    KeysOrder,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Member,
    Revealed,
    Roster,
    Survivors,
    Unmask,
)
from fedser.federation.secure_sum import MaskedSum
from fedser.privacy import shamir

if TYPE_CHECKING:
    from fedser.federation.provider import Flight, Provider

S = TypeVar("S", MaskKeys, MaskShares, MaskedUpdate, Consent, Revealed)
C = TypeVar("C", bound=Collection[str])


class Common(TypedDict):
    """What all messages of an attempt say alike."""

    study: str
    round: int
    attempt: int
    expires: int


@dataclass
class MaskedRound:
    """One attempt at a masked sum.

    Attributes:
        provider: whose plan, key and transport it uses, and which is told who answered and who did not.
        number: of the round.
        tensors: before it, flat float32 [P].
        terms: of the sum.
        flight: attempt and expiry.
    """

    provider: Provider
    number: int
    tensors: Tensor
    terms: Terms
    flight: Flight
    _bytes: dict[str, int] = field(default_factory=dict)
    _begin: float = field(default_factory=time.monotonic)

    def run(self) -> tuple[Tensor, list[str]]:
        """All five exchanges.

        Returns:
            The mean of the survivors' updates, float32 [P], and the survivors.

        Raises:
            QuorumError: too few sites were left at some step, or what they revealed does not unmask the sum.
        """
        roster = self._roster(self._keys())
        boxes = self._shares(roster)
        senders = tuple(member.site for member in roster.members if member.site in boxes)
        total, task = self._updates(roster, senders, boxes)
        survivors = tuple(name for name in senders if name in total.sites)
        consents = self._consents(task, survivors)
        revealed = self._revealed(task, survivors, len(senders) - len(survivors), consents)
        try:
            total.unmask(task, roster, senders, revealed)
        except WireError as error:
            raise QuorumError(f"The masked sum of round {self.number} does not unmask. {error}", error.hint) from None
        mean = total.mean()
        if not norm(mean) <= self.provider.plan.largest_norm:
            raise QuorumError(
                f"The masked mean of round {self.number} is longer than {self.provider.plan.largest_norm:g}.",
                "Some site did not keep to its bound, and a masked sum cannot tell which; or raise largest_norm.",
            )
        return mean, list(survivors)

    def _keys(self) -> dict[str, Member]:
        """First exchange: each site's keys."""
        members: dict[str, Member] = {}
        asked = {
            site: KeysOrder(protocol=1, site=site, terms=self.terms, **self._flight())
            for site in self.provider.plan.sites
        }
        for site, said, signature in self._ask(asked, MaskKeys, lambda site, said: _same(said, asked[site])):
            members[site] = Member(
                site=site,
                signer=self.provider.plan.sites[site],
                encryption=said.encryption,
                agreement=said.agreement,
                commitment=said.commitment,
                signature=signature,
            )
        return self._enough(members, "keys")

    def _roster(self, members: Mapping[str, Member]) -> Roster:
        ordered = tuple(members[site] for site in sorted(members))
        return Roster(protocol=1, site=ordered[0].site, terms=self.terms, members=ordered, **self._flight())

    def _shares(self, roster: Roster) -> dict[str, dict[str, str]]:
        """Second exchange: each site's boxes, by the receiver's name."""
        digest, names = roster_digest(roster), [member.site for member in roster.members]

        def fits(site: str, said: MaskShares) -> bool:
            return said.roster == digest and len(said.boxes) == len(names) - 1

        boxes = {}
        asked = {site: replace(roster, site=site) for site in names}
        for site, said, _ in self._ask(asked, MaskShares, fits):
            boxes[site] = dict(zip((name for name in names if name != site), said.boxes, strict=True))
        return self._enough(boxes, "shares")

    def _updates(
        self, roster: Roster, senders: tuple[str, ...], boxes: Mapping[str, Mapping[str, str]]
    ) -> tuple[MaskedSum, str]:
        """Third exchange: the orders out, the masked updates into the sum; and the task's digest."""
        provider, digests = self.provider, dict[str, str]()
        total, digest = MaskedSum(elements(provider.plan.layout), self.terms), roster_digest(roster)
        task = ""

        def orders() -> Iterator[tuple[str, bytes]]:
            nonlocal task
            for site in senders:
                own = tuple(boxes[sender][site] for sender in senders if sender != site)
                masked = Masked(terms=self.terms, roster=digest, senders=senders, boxes=own)
                order = replace(provider.order(self.number, site, "train", self.tensors, self.flight), masking=masked)
                task, digests[site] = task_digest(order), wire.order_digest(order)
                yield site, wire.encode(order, self.tensors, provider.key)

        def fits(site: str, said: MaskedUpdate, flat: Tensor) -> bool:
            right = said.order_digest == digests.get(site) and said.modulus == self.terms.modulus
            return right and len(flat) == len(total.total)

        for site, opened in self._replies(orders(), set(senders)):
            if not isinstance(opened.message, MaskedUpdate) or not fits(site, opened.message, opened.flat):
                self._refuse(site, _why(opened.message, "The masked update is not the order's."))
                continue
            total.add(site, opened.flat)
            provider.answered(self.number, site, self._bytes[site], time.monotonic() - self._begin)
            del opened  # before the next one is read
        self._enough(total.sites, "updates")
        return total, task

    def _consents(self, task: str, survivors: tuple[str, ...]) -> dict[str, str]:
        """Fourth exchange: the survivors' signatures under the list of them."""
        digest = list_digest(task, survivors)
        asked = {
            site: Survivors(protocol=1, site=site, task=task, survivors=survivors, **self._flight())
            for site in survivors
        }

        def fits(site: str, said: Consent) -> bool:
            return said == Consent(protocol=1, site=site, task=task, survivors=digest)

        return self._enough({site: signature for site, _, signature in self._ask(asked, Consent, fits)}, "consents")

    def _revealed(
        self, task: str, survivors: tuple[str, ...], left: int, consents: Mapping[str, str]
    ) -> dict[str, Revealed]:
        """Fifth exchange: the shares that unmask the sum."""
        digest, signed = list_digest(task, survivors), tuple(sorted(consents.items()))
        asked = {
            site: Unmask(protocol=1, site=site, task=task, survivors=digest, consents=signed, **self._flight())
            for site in consents
        }

        def fits(site: str, said: Revealed) -> bool:
            sizes = (len(said.seeds), len(said.keys)) == (len(survivors), left)
            shares = all(shamir.is_share(bytes.fromhex(share)) for share in (*said.seeds, *said.keys))
            return sizes and shares and (said.task, said.survivors) == (task, digest)

        return self._enough({site: said for site, said, _ in self._ask(asked, Revealed, fits)}, "shares to unmask")

    def _ask(
        self, asked: Mapping[str, wire.Message], kind: type[S], fits: Callable[[str, S], bool]
    ) -> Iterator[tuple[str, S, str]]:
        """One exchange without tensors: who answered what, and the signature, in hexadecimal."""
        orders = ((site, wire.encode(message, wire.NOTHING, self.provider.key)) for site, message in asked.items())
        for site, opened in self._replies(orders, set(asked)):
            said = opened.message
            if isinstance(said, kind) and fits(site, said):
                yield site, said, opened.signature
            else:
                self._refuse(site, _why(said, "The answer is not the one that was asked for."))

    def _replies(self, orders: Iterable[tuple[str, bytes]], open_: set[str]) -> Iterator[tuple[str, wire.Opened]]:
        """The replies that are on the schema and signed by their site, one for each."""
        plan = self.provider.plan
        limits = wire.Limits(elements=elements(plan.layout))
        for site, reply in self.provider.transport.exchange(orders):
            if site not in open_:
                continue  # no order of this exchange, or its second reply
            open_.discard(site)
            if not isinstance(reply, bytes):
                self._refuse(site, reply.reason)
                continue
            self._bytes[site] = self._bytes.get(site, 0) + len(reply)
            try:
                opened = wire.read(reply, plan.sites[site], limits)
            except WireError as error:
                self._refuse(site, str(error))
                continue
            yield site, opened
            del opened, reply  # before the next one is read

    def _enough(self, left: C, step: str) -> C:
        if len(left) < self.terms.threshold:
            raise QuorumError(
                f"The masked sum of round {self.number} has {len(left)} {step}, and {self.terms.threshold} are needed.",
                self.provider.blame(self.number),
            )
        return left

    def _refuse(self, site: str, why: str) -> None:
        self.provider.refused(self.number, site, why)

    def _flight(self) -> Common:
        plan = self.provider.plan
        return Common(study=plan.study, round=self.number, attempt=self.flight.attempt, expires=self.flight.expires)


def _same(said: MaskKeys, asked: KeysOrder) -> bool:
    about = (asked.study, asked.round, asked.attempt, asked.site, asked.terms)
    return (said.study, said.round, said.attempt, said.site, said.terms) == about


def _why(said: wire.Message, otherwise: str) -> str:
    return said.code.name if isinstance(said, Refusal) else otherwise
