"""What a site computes for an order: local adaptation, and the change that it made."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fedser.adapt import Schedule, Target, adapt, make, probabilities
from fedser.adapt.bn import Bn
from fedser.config import Settings
from fedser.federation.layout import Layout, pack, unpack
from fedser.federation.schema import Order, Scalars
from fedser.federation.stages import LocalData, SiteWork
from fedser.models import EmotionClassifier


def adapt_locally(work: SiteWork) -> SiteWork:
    """The stage that trains: received tensors + the site's own ones → adapted model → update and state.

    An order to finish leaves no update; its model becomes the site's personal one.
    """
    order, data = work.order, work.data
    model = assemble(data, unpack(work.tensors, order.layout), work.state.own)
    settle(model, data.x)
    losses: list[float] = []
    if order.work.steps:
        result = adapt(
            model,
            data.x,
            make(order.method, order.options),
            schedule_of(order),
            seed=order.seed,
            linear=data.linear,
            class_mask=data.class_mask,
            frozen=work.keep,
            start=order.work.start,
            total=order.work.total,
            steps=order.work.steps,
        )
        model = result.model  # type: ignore[assignment]
        losses = [entry["loss"] for entry in result.history if "loss" in entry]
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    if order.phase == "finish":
        return replace(work, update=torch.zeros(0), state=replace(work.state, personal=tensors))
    travelling = {name for name, _ in order.layout}
    own = {name: tensor for name, tensor in tensors.items() if name not in travelling}
    return replace(
        work,
        update=change(tensors, work.tensors, order.layout),
        scalars=_scalars(model, data, losses),
        state=replace(work.state, own=own),
    )


def assemble(data: LocalData, *parts: Mapping[str, Tensor]) -> EmotionClassifier:
    """A copy of the bundle's model with some of its tensors replaced, later parts last."""
    model = copy.deepcopy(data.model)
    merged = model.state_dict()
    for part in parts:
        merged.update(part)
    model.load_state_dict(merged)
    return model.eval()


def settle(model: EmotionClassifier, x: Tensor) -> None:
    """Recompute the running statistics of batch normalisation on the site's utterances, in place.

    They never travel: after averaging, a site's old ones describe other weights than the model now has.
    """
    norm = Bn(Settings())
    if len(x) >= norm.minimum:
        norm.solve(model, Target(x.to(next(model.parameters()).device), None, None, seed=0))


def change(after: Mapping[str, Tensor], before: Tensor, layout: Layout) -> Tensor:
    """What training changed: after − before, flat float32 [P]."""
    return pack(after, layout) - before


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


def _scalars(model: EmotionClassifier, data: LocalData, losses: list[float]) -> Scalars:
    p = probabilities(model, data.x, class_mask=data.class_mask)
    mean = p.mean(dim=0)
    entropy = float(-torch.special.xlogy(mean, mean).sum()) / math.log(max(p.shape[1], 2))
    return Scalars(
        loss=sum(losses) / len(losses) if losses else 0.0,
        confidence=min(float(p.max(dim=1).values.mean()), 1.0),
        diversity=min(max(entropy, 0.0), 1.0),
    )
