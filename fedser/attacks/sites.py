"""Sites under attack: how each defence has them answer, and what of it the provider sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor

from fedser.attacks.purse import Purse, Verdicts
from fedser.bundle.keys import SigningKey
from fedser.evaluate.federate import InProcess
from fedser.federation import wire
from fedser.federation.local import adapt_locally
from fedser.federation.plan import Plan
from fedser.federation.policy import Policy
from fedser.federation.provider import Flight, Provider
from fedser.federation.schema import Code, Order, Scalars, Update
from fedser.federation.site import Site
from fedser.federation.stages import LocalData, SiteStage, SiteState, SiteWork, beginning, site_step
from fedser.privacy.accountant import noise_of
from fedser.privacy.settings import MaskingSettings
from fedser.privacy.site_unit import noise_of_share

FIGURES = 4  # count, loss, confidence and diversity
STUDY = "attacked"
_EXPIRY = 2**40  # seconds since 1970: no order of a run gets old
NEARLY_NONE = 1e-3  # noise, in clips, that hides nothing


@dataclass(frozen=True)
class Seen:
    """What the provider has of one site after one order.

    Attributes:
        flat: the update [P].
        figures: the count and the scalars [4]; zero where they do not leave.
    """

    flat: Tensor
    figures: Tensor


class Attacked(Protocol):
    """A site that an attacker sends orders to."""

    def answer(self, order: Order, flat: Tensor) -> Seen | Code:
        """What comes back for an order and its tensor [P]: an update, or the code of a refusal."""


@dataclass(frozen=True)
class Defence:
    """A setting under attack.

    Attributes:
        name: none, default or private.
        policy: of the site; what an order may ask for is read from it where there is no defence, too.
        open: makes a site of its name and data.
        cohort: of so many sites' updates the provider sees the sum alone; 1 without a masked sum.
    """

    name: str
    policy: Policy
    open: Callable[[str, LocalData], Attacked]
    cohort: int = 1


@dataclass(frozen=True)
class Keys:
    """The keys of one run; the site's own is shared by all attacked sites."""

    provider: SigningKey
    site: SigningKey


def fresh_keys() -> Keys:
    """New keys."""
    return Keys(*(SigningKey(Ed25519PrivateKey.generate()) for _ in range(2)))


class Bare:
    """The control: the site's step with no gate before or behind it."""

    def __init__(self, data: LocalData) -> None:
        self._data = data
        self._state = SiteState(STUDY)

    def answer(self, order: Order, flat: Tensor) -> Seen | Code:
        """The change that the order made, as it is."""
        work = site_step((adapt_locally,), SiteWork(order, flat, self._data, beginning(order, self._state)))
        self._state = replace(work.state, round=order.round, attempt=order.attempt)
        return Seen(work.update, figures(len(self._data.x), work.scalars))


class Gated:
    """The real site behind its gate, through the bytes of the wire."""

    def __init__(self, site: Site, keys: Keys) -> None:
        self._site = site
        self._keys = keys

    def answer(self, order: Order, flat: Tensor) -> Seen | Code:
        """What the reply says."""
        reply = self._site.answer(wire.encode(order, flat, self._keys.provider))
        message, values = wire.decode_reply(reply, self._keys.site.public_hex)
        if not isinstance(message, Update):
            return message.code
        return Seen(values, figures(message.utterances or 0, message.scalars))


def undefended() -> Defence:
    """No gate, and every layer travels."""
    return Defence("none", Policy(leave="all", peer=True), lambda _name, data: Bare(data))


def defended(
    name: str,
    policy: Policy,
    keys: Keys,
    *,
    stage: SiteStage = adapt_locally,
    counted: bool = True,
    noiseless: bool = False,
) -> Defence:
    """Real sites of one policy, their ledgers in memory.

    Args:
        name: of the setting.
        policy: its masking, where it has one, is played by sums of so many sites as it names honest.
        keys: of the run.
        stage: what the sites compute.
        counted: whether the budget ends; audits ask more often than any budget allows.
        noiseless: run with so little noise that nothing is hidden, as an attacker does on his own sites.
    """
    masked = policy.privacy.masking.required and not noiseless
    alone = unmasked(policy)
    if noiseless and alone.privacy.on:
        alone = alone.model_copy(update={"privacy": alone.privacy.model_copy(update={"noise": NEARLY_NONE})})
    free = not counted or noiseless or masked  # a share of a sum is no release: its own ledger cannot count the sum's
    verdicts: Verdicts = {}

    def open_site(site: str, data: LocalData) -> Attacked:
        own = alone.privacy
        ledger = Purse(own, site, None if free else verdicts) if own.on else None
        real = Site(*(site, STUDY, data, alone, keys.site, keys.provider.public_hex), stages=(stage,), ledger=ledger)
        return Gated(real, keys)

    return Defence(name, policy, open_site, policy.privacy.masking.honest if masked else 1)


def unmasked(policy: Policy) -> Policy:
    """The same policy with each site's update in the open, for sums that the attack makes itself.

    A share of a central sum has 1/√honest of the target's standard deviation; so it is here, in the local form.
    """
    own = policy.privacy
    if not own.masking.required:
        return policy
    changes: dict[str, object] = {"masking": MaskingSettings(), "form": "local"}
    if own.unit == "site" and own.form == "central":
        changes["noise"] = noise_of_share(noise_of(own), own.masking.honest)
    return policy.model_copy(update={"privacy": own.model_copy(update=changes)})


def sums(flats: Tensor, cohort: int, groups: Sequence[int], rng: np.random.Generator) -> Tensor:
    """For each site the sum of its update and of those of cohort − 1 others of its group [n, P]."""
    if cohort == 1:
        return flats
    weights = torch.eye(len(flats))
    for row in range(len(flats)):
        others = [other for other, group in enumerate(groups) if group == groups[row] and other != row]
        weights[row, rng.choice(others, cohort - 1, replace=len(others) < cohort - 1)] += 1.0
    return weights @ flats


def order_of(plan: Plan, keys: Keys, number: int, site: str, flat: Tensor) -> Order:
    """The order of a round for one site, as the provider signs it, with the tensors [P] beside it."""
    return Provider(plan, keys.provider, InProcess({}), ()).order(number, site, "train", flat, Flight(0, _EXPIRY))


def figures(utterances: int, scalars: Scalars | None) -> Tensor:
    """The count and the scalars of a reply [4]."""
    own = (0.0, 0.0, 0.0) if scalars is None else (scalars.loss, scalars.confidence, scalars.diversity)
    return torch.tensor([float(utterances), *own])


def replies(sites: Sequence[Attacked], orders: Iterator[Order], flat: Tensor) -> tuple[Tensor, Tensor, list[Code]]:
    """One round: updates [n, P] and figures [n, 4], zero where a site refused, and the refusals."""
    rows, others, refused = [], [], list[Code]()
    for site, order in zip(sites, orders, strict=True):
        seen = site.answer(order, flat)
        if isinstance(seen, Seen):
            rows.append(seen.flat)
            others.append(seen.figures)
        else:
            refused.append(seen)
            rows.append(torch.zeros_like(flat))
            others.append(torch.zeros(FIGURES))
    return torch.stack(rows), torch.stack(others), refused
