"""What a study does, and how its settings become a plan: simulation and network build it by the same function."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedser.adapt import Method, Schedule
from fedser.adapt.method import Gradient
from fedser.compute import generator
from fedser.errors import ConfigError
from fedser.federation.layout import PEER, Layout, layout_of, pack
from fedser.federation.peer import PeerSettings, layout_of_peer
from fedser.federation.policy import Leave, Policy
from fedser.federation.schema import Encoding, PeerWork, Work
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.student import StudentSettings
from fedser.models import EmotionClassifier, LinearClassifier


@dataclass(frozen=True)
class Plan:
    """What a study does.

    Attributes:
        study: its name; survives restarts of either side.
        sites: public key, in hexadecimal, of each site by name.
        method, options: what the sites run.
        layout: the tensors that travel.
        schedule: of the local loop; ``schedule.steps`` is each site's steps in all.
        rounds: exchanges, over which the steps before the last adaptation are spread evenly.
        personal_steps: of the last adaptation, after the last exchange, which stays at the site.
        quorum: least number of valid updates of a round.
        largest_norm: an update with a larger L2 norm is refused.
        seed: of the study; each site's own seed derives from it.
        lifetime: seconds for which an order is valid.
        encoding: of the updates' values; see :class:`~fedser.federation.schema.Order`.
        peer: how sites refit and follow the shared linear peer; None without one.
        masking: how the updates are summed under masks; None where each is sent as it is.
        student: how the network that travels learns from each site's own one; None where that one itself travels.
    """

    study: str
    sites: Mapping[str, str]
    method: str
    options: Mapping[str, bool | int | float | str]
    layout: Layout
    schedule: Schedule
    rounds: int
    personal_steps: int = 0
    quorum: int = 1
    largest_norm: float = 1e3
    seed: int = 0
    lifetime: int = 3600
    encoding: Encoding = "f32"
    peer: PeerWork | None = None
    masking: MaskingTerms | None = None
    student: StudentSettings | None = None

    @property
    def total(self) -> int:
        """Local steps of each site in all."""
        return self.schedule.steps or 0

    @property
    def width(self) -> int:
        """Bytes of one value, at most."""
        return 4 if self.masking is None else max(4, self.masking.modulus // 8)

    def steps_before(self, number: int) -> int:
        """Shared steps that lie before round ``number`` (from 1); for ``rounds + 1`` those of all rounds."""
        shared = self.student.steps if self.student else self.total
        return (shared - self.personal_steps) * (number - 1) // self.rounds

    def work(self, start: int, steps: int) -> Work:
        """The part of the schedule that one order asks for."""
        own = self.schedule
        return Work(
            steps=steps,
            start=start,
            total=self.total,
            batch_size=own.batch_size,
            learning_rate=own.learning_rate,
            momentum=own.momentum,
            weight_decay=own.weight_decay,
            decay=own.decay,
            input_noise=own.input_noise,
            backbone_scale=own.backbone_scale,
        )


@dataclass(frozen=True)
class Joining:
    """How sites join, as a simulation's and a study's settings have it in common.

    Attributes:
        rounds: exchanges; at most one a step.
        personal_steps: local steps of the last adaptation.
        leave: which tensors the orders ask for.
        encoding: of the updates' values.
        peer: the shared linear peer.
        seed: of the study.
        network: whether the network's weights travel, or each site keeps its own and shares the peer alone.
        masking: how the updates are summed under masks; None where each is sent as it is.
        student: a joint network that learns from each site's own one.
    """

    rounds: int
    personal_steps: int
    leave: Leave
    encoding: Encoding
    peer: PeerSettings
    seed: int
    network: bool = True
    masking: MaskingTerms | None = None
    student: StudentSettings = field(default_factory=StudentSettings)


def plan_of(
    study: str,
    model: EmotionClassifier,
    linear: LinearClassifier | None,
    method: Method,
    schedule: Schedule,
    joining: Joining,
    sites: Mapping[str, str] | None = None,
    *,
    quorum: int = 1,
    largest_norm: float = 1e3,
    lifetime: int = 3600,
) -> Plan:
    """The plan that settings make of a source model.

    Args:
        study: its name.
        model: the source model.
        linear: the published logistic regression, where there is one.
        method: what the sites run.
        schedule: its ``steps`` are each site's steps in all.
        joining: how they join.
        sites: public key of each site; none yet when None.
        quorum, largest_norm, lifetime: see :class:`Plan`.

    Raises:
        ConfigError: nothing would travel, the peer is to be shared and there is none, or peer and student are.
    """
    trained = travelling(model, method, Policy(leave=joining.leave))
    joint_steps = joining.student.shared(schedule.steps or 0) - joining.personal_steps
    peer = joining.peer.work()
    if joining.student.steps and (peer is not None or not joining.network):
        raise ConfigError(
            "A student is the network that travels, and needs no linear peer beside it.",
            "Set student.steps=0, or peer.weight=0 and network=true.",
        )
    if not trained or joint_steps < 1 or (peer is None and not joining.network):
        raise ConfigError(
            "Nothing would travel: the method, 'leave' or the steps leave nothing to join.",
            "Choose a method that trains, leave=all_but_first, personal below 1, and network=true or peer.weight=3.",
        )
    layout = (trained if joining.network else ()) + (() if peer is None else layout_of_peer(linear))
    return Plan(
        study=study,
        sites=dict(sites or {}),
        method=method.name,
        options=method.settings.model_dump(mode="json", exclude_none=True),
        layout=layout,
        schedule=schedule,
        rounds=min(joining.rounds, joint_steps),
        personal_steps=joining.personal_steps,
        quorum=quorum,
        largest_norm=largest_norm,
        seed=joining.seed,
        lifetime=lifetime,
        encoding=joining.encoding,
        peer=peer,
        masking=joining.masking,
        student=joining.student if joining.student.steps else None,
    )


def travelling(model: EmotionClassifier, method: Method, policy: Policy) -> Layout:
    """The network's tensors that travel: those that the method trains and the policy lets go."""
    trained = method.trainable(model) if isinstance(method, Gradient) else ()
    return layout_of(model, policy.may_leave(model.adaptable(), model.first_layer()) & set(trained))


def beginning_of(model: EmotionClassifier, linear: LinearClassifier | None, layout: Layout) -> Tensor:
    """The tensors that the first round starts from, as published: flat float32 [P]."""
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    if linear is not None:
        tensors[PEER] = linear.weight
    return pack(tensors, layout)


def site_seed(seed: int, name: str) -> int:
    """The seed of one site: the same alone and in a federation, another one for each site."""
    return generator("site", seed, name).initial_seed()
