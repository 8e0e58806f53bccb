"""One gradient a group: the method's own loss, with the group as the whole site, for all groups at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from fedser.adapt import Bank, Batch, Method
from fedser.adapt.aad import Aad
from fedser.adapt.ecan import Ecan
from fedser.adapt.method import Gradient
from fedser.adapt.probabilities import mask_logits
from fedser.errors import PrivacyError
from fedser.models import EmotionClassifier
from fedser.privacy.group_layers import gradients_of_layer

#: Methods whose loss needs the utterances of its batch and their bank alone, so that a group can be a whole site.
GROUPWISE: tuple[type[Gradient], ...] = (Ecan, Aad)

#: Rows that the model sees at least: a product with very few is computed by another order of sums, and what becomes of
#: one group's utterances must not tell, even by a rounding, how many others are there.
LEAST = 16

Gradients = dict[str, Tensor]


def supports(method: Method) -> bool:
    """Whether a method's loss can be stated inside a group."""
    return type(method) in GROUPWISE


def group_loss(
    method: Gradient, b: Tensor, logits: Tensor, class_mask: Tensor | None = None, progress: float = 0.0
) -> Tensor:
    """The method's loss of one group: its utterances are the batch, and the bank holds them and no others.

    Args:
        method: one that :func:`supports` accepts.
        b: bottleneck outputs [S, d].
        logits: [S, C].
        class_mask: bool [C], true for the classes that can occur; None means all.
        progress: t/T of the whole schedule.
    """
    logits = mask_logits(logits, class_mask)
    f, p = functional.normalize(b, dim=1), logits.softmax(dim=1)
    index = torch.arange(len(b), device=b.device)
    batch = Batch(index, b, f, p, logits, Bank(b, p), None, progress)
    return torch.stack(list(method.loss(batch).values())).sum()


def gradients_of(
    model: EmotionClassifier, method: Gradient, trained: tuple[str, ...], class_mask: Tensor | None = None
) -> Callable[[Tensor, float], Gradients]:
    """A function from groups' features [G, S, \\*shape] and t/T to the gradients of each group [G, \\*parameter].

    The model's parameters are read at each call. It must be in evaluation mode: batch normalisation then uses the
    published statistics, and no utterance changes what another one becomes. So the model runs over the utterances of
    all groups as one batch, and the groups part where the losses begin.
    """
    owners: dict[str, list[str]] = {}
    for name in trained:
        layer, _, own = name.rpartition(".")
        owners.setdefault(layer, []).append(own)

    def loss(b: Tensor, logits: Tensor, progress: float) -> Tensor:
        return group_loss(method, b, logits, class_mask, progress)

    losses = vmap(loss, in_dims=(0, 0, None), randomness="error")

    def compute(x: Tensor, progress: float) -> Gradients:
        groups, further = x.shape[:2], x.requires_grad
        with _seen(model, owners) as seen:
            b = model.embed(_filled(x.flatten(0, 1)))
            logits = model.classify(b)
        total = losses(_parted(b, groups), _parted(logits, groups), progress).sum()
        outputs = [output for _, output in seen.values()]
        outward = torch.autograd.grad(total, outputs, create_graph=further)
        found = {}
        with torch.set_grad_enabled(further):
            for (name, (inward, _)), gradient in zip(seen.items(), outward, strict=True):
                parts = _parted(inward, groups), _parted(gradient, groups)
                of_layer = gradients_of_layer(model.get_submodule(name), owners[name], *parts)
                found.update({f"{name}.{own}": each for own, each in of_layer.items()})
        return {name: found[name] for name in trained}

    return compute


def _filled(rows: Tensor) -> Tensor:
    """At least so many rows, those that are missing as zeros, of which no loss knows."""
    missing = LEAST - len(rows)
    return rows if missing <= 0 else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])


def _parted(rows: Tensor, groups: torch.Size) -> Tensor:
    """[G · S or more, \\*shape] as [G, S, \\*shape]."""
    return rows[: groups.numel()].reshape(*groups, *rows.shape[1:])


@contextmanager
def _seen(model: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Keep what goes into some layers and what comes out, by their names."""
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(_: nn.Module, inward: tuple[Tensor], outward: Tensor) -> None:
            if name in found:  # its gradient would be that of one of the two
                raise PrivacyError(
                    f"The layer {name} is used twice in one pass, which private steps over groups do not do.",
                    "Use another encoder, or the site as the privacy unit (unit: site).",
                )
            found[name] = (inward[0], outward if outward.requires_grad else outward.requires_grad_())

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield found
    finally:
        for each in hooks:
            each.remove()
