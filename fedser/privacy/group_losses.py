"""One gradient a group: the method's own loss, with the group as the whole site, for all groups at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from fedser.adapt import Bank, Batch, Method
from fedser.adapt.aad import Aad
from fedser.adapt.ecan import Ecan
from fedser.adapt.method import Gradient
from fedser.adapt.probabilities import mask_logits
from fedser.models import EmotionClassifier

#: Methods whose loss needs the utterances of its batch and their bank alone, so that a group can be a whole site.
GROUPWISE: tuple[type[Gradient], ...] = (Ecan, Aad)

Gradients = dict[str, Tensor]


def supports(method: Method) -> bool:
    """Whether a method's loss can be stated inside a group."""
    return type(method) in GROUPWISE


class _Outputs(nn.Module):
    """Bottleneck outputs and logits of one model, as one call."""

    def __init__(self, model: EmotionClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """b [S, d] and logits [S, C] of features [S, \\*shape]."""
        b = self.model.embed(x)
        return b, self.model.classify(b)


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
    published statistics, and no utterance changes what another one becomes.
    """
    outputs = _Outputs(model)
    kept = {f"model.{name}": tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in trained}

    def loss(own: Mapping[str, Tensor], x: Tensor, progress: float) -> Tensor:
        b, logits = functional_call(outputs, {**kept, **own}, (x,))
        return group_loss(method, b, logits, class_mask, progress)

    losses = vmap(loss, in_dims=(0, 0, None), randomness="error")

    def compute(x: Tensor, progress: float) -> Gradients:
        # Each group gets its own view of the trained parameters; one backward pass then has all groups' gradients.
        own = {
            f"model.{name}": model.get_parameter(name).detach().expand(len(x), *model.get_parameter(name).shape)
            for name in trained
        }
        for view in own.values():
            view.requires_grad_()
        found = torch.autograd.grad(losses(own, x, progress).sum(), list(own.values()), create_graph=x.requires_grad)
        return dict(zip(trained, found, strict=True))

    return compute
