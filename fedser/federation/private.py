"""What a site computes for an order under a privacy unit inside the site: private steps instead of ordinary ones."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedser.errors import PrivacyError
from fedser.federation.layout import network, unpack
from fedser.federation.local import adapt_locally, assemble, change, method_of, schedule_of
from fedser.federation.policy import Policy
from fedser.federation.stages import LocalData, SiteStage, SiteWork
from fedser.models.pretrained import PretrainedEncoder
from fedser.privacy.group_steps import GroupSettings, private_steps
from fedser.privacy.settings import PrivacySettings
from fedser.privacy.validity import Facts, check


def inside(privacy: PrivacySettings) -> bool:
    """Whether the privacy unit is a part of the site: one speaker or one utterance."""
    return privacy.unit in ("speaker", "utterance")


def ready(policy: Policy, data: LocalData) -> None:
    """Check, before a site takes part, that its data are prepared for its privacy unit.

    Raises:
        PrivacyError: rows depend on more than their own unit, no speaker is declared, or layers of a pretrained encoder
            would be trained.
    """
    if not inside(policy.privacy):
        return
    if isinstance(data.model.encoder, PretrainedEncoder):
        raise PrivacyError(
            "Layers of a pretrained encoder are trained here, which private steps over groups do not do.",
            "Use a bundle whose encoder stays frozen (trained: frozen), or privacy.unit: site.",
        )
    named = {unit for unit in data.units or () if unit is not None}
    facts = Facts(features=data.statistics, declared=bool(named), units=len(named), batch_norm="published")
    check(policy.privacy, facts)
    if data.units is None or len(data.units) != len(data.x):
        raise PrivacyError(
            "It is not known which unit each utterance belongs to.", "Prepare the data for this privacy unit."
        )


def adapt_privately(privacy: PrivacySettings) -> SiteStage:
    """The stage that trains by private steps; it takes the place of :func:`fedser.federation.local.adapt_locally`.

    All that leaves is the change of the tensors that travel, a function of the weights that came and of noised sums.
    It starts from these weights and the bundle's alone: nothing that the site learnt before goes in (``own`` layers,
    statistics of batch normalisation), and neither counts nor scalars come out. An order to finish is carried out
    without noise, by ordinary training, because its model stays here and its answer is empty; with no steps left, the
    personal model is the joint one as it came.

    Args:
        privacy: of the site's policy; its budget is charged with all steps of the order before this stage runs.
    """

    def stage(work: SiteWork) -> SiteWork:
        order, data = work.order, work.data
        if order.phase == "finish":
            return adapt_locally(work) if order.work.steps else _as_it_came(work)
        if data.units is None:
            raise PrivacyError("The utterances' units are not known.", "Prepare the data for this privacy unit.")
        adapted = private_steps(
            assemble(data, network(unpack(work.tensors, order.layout))),
            data.x,
            data.units,
            method_of(order),
            schedule_of(order),
            GroupSettings.of(privacy),
            steps=order.work.steps,
            start=order.work.start,
            total=order.work.total,
            class_mask=data.class_mask,
            allowed={name for name, _ in order.layout},
        )
        after = {name: tensor.detach().cpu().clone() for name, tensor in adapted.state_dict().items()}
        return replace(work, update=change(after, work.tensors, order.layout), scalars=None)

    return stage


def _as_it_came(work: SiteWork) -> SiteWork:
    """The joint model as the personal one, with the published statistics that it was trained with."""
    model = assemble(work.data, network(unpack(work.tensors, work.order.layout)))
    personal = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    return replace(work, update=torch.zeros(0), state=replace(work.state, personal=personal))
