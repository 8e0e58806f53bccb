"""What a site computes for an order: local adaptation, and the change that it made."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedser.adapt import Method, Schedule, adapt, conclude, make, probabilities
from fedser.federation.layout import PEER, Layout, network, pack, unpack
from fedser.federation.peer import Pupil, study
from fedser.federation.schema import Order, Scalars, StudentWork
from fedser.federation.settle import settle
from fedser.federation.stages import LocalData, SiteWork
from fedser.federation.student import learn
from fedser.models import EmotionClassifier


def adapt_locally(work: SiteWork) -> SiteWork:
    """The stage that trains: received tensors + the site's own ones → adapted model → update and state.

    An order to finish leaves no update; its model becomes the site's personal one.
    """
    order, data, method = work.order, work.data, method_of(work.order)
    received = unpack(work.tensors, order.layout)
    model = assemble(data, network(received), work.state.own)
    settle(model, data.x)
    if order.student is not None:
        work, losses = _taught(work, method, model, order.student)
        weight = None
    else:
        model, weight, losses = _trained(work, method, model, received.get(PEER))
    if order.phase == "finish" and order.student is None:
        model = _concluded(order, method, data, model)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if order.phase == "finish":
        return replace(work, update=torch.zeros(0), state=replace(work.state, personal=tensors))
    travelling = {name for name, _ in order.layout}
    own = {name: tensor for name, tensor in tensors.items() if name not in travelling}
    after = tensors if weight is None else {**tensors, PEER: weight}
    return replace(
        work,
        update=change(after, work.tensors, order.layout),
        scalars=_scalars(model, data, losses),
        state=replace(work.state, own=own),
    )


def _taught(
    work: SiteWork, method: Method, student: EmotionClassifier, steps: StudentWork
) -> tuple[SiteWork, Sequence[float]]:
    """Let the joint network learn from the site's own one, which is adapted first where there is none yet."""
    if not steps.steps:
        return work, ()
    order, data = work.order, work.data
    if not work.state.teacher:
        own = adapt(
            data.model,
            data.x,
            method,
            schedule_of(order),
            seed=order.seed,
            linear=data.linear,
            class_mask=data.class_mask,
            whole=False,
        ).model
        kept = {name: tensor.detach().cpu().clone() for name, tensor in own.state_dict().items()}
        work = replace(work, state=replace(work.state, teacher=kept))
    teacher = assemble(data, work.state.teacher)
    mask, travelling = data.class_mask, {name for name, _ in order.layout}
    keep = work.keep | (set(student.adaptable()) - travelling)  # first layers that differ have no mean behind them
    return work, [learn(student, teacher, data.x, steps, method, seed=order.seed, class_mask=mask, frozen=keep)]


def _trained(
    work: SiteWork, method: Method, model: EmotionClassifier, weight: Tensor | None
) -> tuple[EmotionClassifier, Tensor | None, Sequence[float]]:
    """The network after the order's steps, the peer's weight [C, D] where one is shared, and the losses."""
    order, data = work.order, work.data
    if not order.work.steps:
        return model, weight, ()
    schedule = schedule_of(order)
    if order.peer is not None and weight is not None and data.linear is not None:
        pupil = study(
            Pupil(model, weight),
            data.x,
            method,
            schedule,
            order.peer,
            data.linear,
            seed=order.seed,
            start=order.work.start,
            total=order.work.total,
            steps=order.work.steps,
            class_mask=data.class_mask,
            frozen=work.keep,
        )
        return pupil.model, pupil.weight, pupil.losses
    result = adapt(
        model,
        data.x,
        method,
        schedule,
        seed=order.seed,
        linear=data.linear,
        class_mask=data.class_mask,
        frozen=work.keep,
        start=order.work.start,
        total=order.work.total,
        steps=order.work.steps,
        whole=False,
    )
    adapted: EmotionClassifier = result.model  # type: ignore[assignment]
    return adapted, None, [entry["loss"] for entry in result.history if "loss" in entry]


def _concluded(order: Order, method: Method, data: LocalData, model: EmotionClassifier) -> EmotionClassifier:
    """The personal model: what the method makes of the last weights, at this site alone."""
    ended: EmotionClassifier = conclude(  # type: ignore[assignment]
        model, data.model, data.x, method, seed=order.seed, linear=data.linear, class_mask=data.class_mask
    )
    return ended


def assemble(data: LocalData, *parts: Mapping[str, Tensor]) -> EmotionClassifier:
    """A copy of the bundle's model with some of its tensors replaced, later parts last."""
    model = copy.deepcopy(data.model)
    merged = model.state_dict()
    for part in parts:
        merged.update(part)
    model.load_state_dict(merged)
    return model.eval()


def change(after: Mapping[str, Tensor], before: Tensor, layout: Layout) -> Tensor:
    """What training changed: after − before, flat float32 [P]."""
    return pack(after, layout) - before


def method_of(order: Order) -> Method:
    """The method that an order asks for.

    Raises:
        FedserError: there is none of this name, or its options do not fit.
    """
    return make(order.method, order.options)


def schedule_of(order: Order) -> Schedule:
    """The order's work as the loop's schedule."""
    return Schedule(
        steps=order.work.total,
        batch_size=order.work.batch_size,
        learning_rate=order.work.learning_rate,
        momentum=order.work.momentum,
        weight_decay=order.work.weight_decay,
        decay=order.work.decay,
        input_noise=order.work.input_noise,
        backbone_scale=order.work.backbone_scale,
    )


def _scalars(model: EmotionClassifier, data: LocalData, losses: Sequence[float]) -> Scalars:
    p = probabilities(model, data.x, class_mask=data.class_mask)
    mean = p.mean(dim=0)
    entropy = float(-torch.special.xlogy(mean, mean).sum()) / math.log(max(p.shape[1], 2))
    return Scalars(
        loss=sum(losses) / len(losses) if losses else 0.0,
        confidence=min(float(p.max(dim=1).values.mean()), 1.0),
        diversity=min(max(entropy, 0.0), 1.0),
    )
