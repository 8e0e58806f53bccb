"""One simulated federation: provider and sites in this process, through the same bytes as over a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import Tensor, nn

from fedser.adapt import Method, Schedule
from fedser.bundle.keys import SigningKey
from fedser.errors import ConfigError
from fedser.evaluate.simulation_settings import RoundSettings
from fedser.evaluate.world import SiteWorld
from fedser.federation.aggregation import server_stages
from fedser.federation.layout import unpack
from fedser.federation.local import adapt_locally
from fedser.federation.plan import Joining, beginning_of, plan_of
from fedser.federation.policy import Policy
from fedser.federation.provider import Provider, Refused
from fedser.federation.site import Site
from fedser.federation.stages import ServerState, SiteStage
from fedser.models import EmotionClassifier
from fedser.privacy.group_losses import supports
from fedser.privacy.ledger import open_ledger
from fedser.privacy.validity import Facts, check

Watch = Callable[[int, list[nn.Module]], None]


@dataclass(frozen=True)
class Joined:
    """The result of a federation.

    Attributes:
        models: each member's final model; the source model where a site refused to take part.
        tensors: the last joint tensors, by name.
        refusals: orders that brought no update.
    """

    models: list[nn.Module]
    tensors: dict[str, Tensor]
    refusals: list[Refused]


class InProcess:
    """The transport of a simulation: it calls the site."""

    def __init__(self, sites: Mapping[str, Site]) -> None:
        self._sites = sites

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        """Each site's reply to its order."""
        for site, order in orders:
            yield site, self._sites[site].answer(order)


def federate(
    members: Sequence[SiteWorld],
    model: EmotionClassifier,
    method: Method,
    schedule: Schedule,
    settings: RoundSettings,
    policy: Policy,
    *,
    study: str,
    rounds: int,
    personal_steps: int,
    seed: int,
    watch: Watch | None = None,
    stages: Mapping[str, Sequence[SiteStage]] | None = None,
) -> Joined:
    """Run all rounds and the order to finish.

    Args:
        members: the sites that take part.
        model: the source model.
        method: what the sites run.
        schedule: its ``steps`` are K, each site's local steps in all.
        settings: of the server.
        policy: of every site.
        study: the federation's name.
        rounds: exchanges; at most one a local step.
        personal_steps: of the last adaptation, which stays at the site.
        seed: of the study.
        watch: called before the first round (0) and after each with every member's view of the joint model.
        stages: what some sites, by name, do to their update after they adapted; for studies of hostile sites.

    Raises:
        ConfigError: nothing would travel, a peer is to be shared and there is none, or masks that do not fit.
        QuorumError: no site took part.
        PrivacyError: the run would not keep what the policy's privacy unit claims.
    """
    if policy.privacy.masking.peers:
        raise ConfigError(
            "The sites of a simulation have new keys in every run, which no list of fingerprints knows.",
            "Leave policy.privacy.masking.peers empty.",
        )
    if policy.privacy.masking.required and not settings.masked:
        raise ConfigError(
            "The sites' policy demands masked sums, and this federation would ask for single updates.",
            "Set federation.masked=true, or policy.privacy.masking.required=false.",
        )
    check(
        policy.privacy,
        Facts(
            method=method.name,
            groupwise=supports(method),
            peer=settings.peer.work() is not None,
            student=settings.student.steps > 0,
            weighting=settings.aggregation.weighting,
        ),
    )
    key = _fresh_key()
    keys = {site.name: _fresh_key() for site in members}
    after = {site.name: (adapt_locally, *(stages or {}).get(site.name, ())) for site in members}
    sites = {
        site.name: Site(
            *(site.name, study, site.data, policy, keys[site.name], key.public_hex),
            stages=after[site.name],
            ledger=open_ledger(policy.privacy, site.name, None),
        )
        for site in members
    }
    joining = Joining(
        rounds=rounds,
        personal_steps=personal_steps,
        leave=policy.leave,
        encoding=settings.encoding,
        peer=settings.peer,
        seed=seed,
        network=settings.network,
        masking=settings.masking if settings.masked else None,
        student=settings.student,
    )
    linear = members[0].data.linear
    own_keys = {name: own.public_hex for name, own in keys.items()}
    plan = plan_of(study, model, linear, method, schedule, joining, own_keys)
    layout = plan.layout
    stages_of_server = server_stages(
        settings.aggregation, layout, masked=settings.masked, student=settings.student.steps > 0
    )
    provider = Provider(plan, key, InProcess(sites), stages_of_server)

    def after_round(number: int, flat: Tensor, _: ServerState | None = None) -> None:
        if watch is not None:
            watch(number, [site.model(unpack(flat, layout)) for site in sites.values()])

    start = beginning_of(model, linear, layout)
    after_round(0, start)
    last = provider.run(start, after_round)
    return Joined([site.personal() or model for site in sites.values()], unpack(last, layout), provider.refusals)


def _fresh_key() -> SigningKey:
    return SigningKey(Ed25519PrivateKey.generate())
