"""The one adaptation loop. Methods differ in their loss; everything else is the same for all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedser import compute
from fedser.adapt.bank import Bank
from fedser.adapt.history import History
from fedser.adapt.method import Batch, Direct, Gradient, Method, Target
from fedser.adapt.optimiser import batches, optimiser, seeded_dropout, set_rate
from fedser.adapt.probabilities import mask_logits, outputs, probabilities
from fedser.adapt.schedule import Schedule
from fedser.errors import ConfigError, TooLittleDataError, UsageError
from fedser.models import EmotionClassifier, LinearClassifier

RENEWED = 3  # fewest steps between two passes for pseudo-labels: where an epoch is one step, they hardly change in it


@dataclass
class Adapted:
    """The result of one adaptation.

    Attributes:
        model: in evaluation mode, features [B, \\*shape] to logits [B, C]; it does not mask absent classes.
        history: one entry an epoch: epoch, step, loss, its parts, and the mean entropy of the predictions.
        steps: gradient steps that were made.
    """

    model: nn.Module
    history: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0


def adapt(
    model: EmotionClassifier,
    x: Tensor,
    method: Method,
    schedule: Schedule | None = None,
    *,
    seed: int,
    linear: LinearClassifier | None = None,
    class_mask: Tensor | None = None,
    frozen: Collection[str] = (),
    start: int = 0,
    total: int | None = None,
    steps: int | None = None,
    whole: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> Adapted:
    """Adapt a source model to one site's unlabelled utterances.

    The same seed gives the same model on a CPU; the global random state and ``model`` itself are left alone.

    Args:
        model: the source model; it gives the device.
        x: normalised features [N, \\*shape].
        method: see :func:`fedser.adapt.make`.
        schedule: the method's own when None.
        seed: of shuffling, noise and dropout.
        linear: the provider's logistic regression, for the methods that start from it.
        class_mask: bool [C], true for the classes that can occur at the site; None means all.
        frozen: names of parameters that stay as they are, whatever the method says.
        start: the first step of this call within a schedule of ``total`` steps (a federation's rounds).
        total: the steps that the schedule spans; the schedule's own length when None.
        steps: steps of this call; up to ``total`` when None.
        whole: whether this call is the whole adaptation, which the method then concludes; one that is made in parts
            ends with :func:`conclude`.
        on_step: called after each step with the number of steps done in this call.

    Raises:
        TooLittleDataError: fewer utterances than the method needs.
        UsageError: names, shapes or the mask do not fit the model, or nothing is left to adapt.
        ConfigError: the steps do not fit the schedule, or the weights became infinite.
    """
    _check(model, x, method, class_mask, frozen)
    device = next(model.parameters()).device
    x = x.to(device)
    class_mask = None if class_mask is None else class_mask.to(device)
    model = copy.deepcopy(model)
    if isinstance(method, Direct):
        return Adapted(method.solve(model, Target(x, class_mask, linear, seed)).eval())
    if not isinstance(method, Gradient):
        raise TypeError(f"{type(method).__name__} is neither a Direct nor a Gradient method")

    schedule = schedule or method.schedule
    total = schedule.total(len(x)) if total is None else total
    steps = total - start if steps is None else steps
    if not 0 <= start <= start + steps <= total:
        raise ConfigError(f"Steps {start} to {start + steps} lie outside a schedule of {total}.", "Raise total.")
    sgd = optimiser(model, set(method.trainable(model)) - set(frozen), schedule)
    noise = compute.generator("adapt", "noise", seed, start)
    per_epoch, history, targets = schedule.per_epoch(len(x)), History(), None

    with seeded_dropout(device, "adapt", "dropout", seed, start):
        # 1. A full pass fills the bank, anew in each call, from the weights that came in; its answers are kept.
        bank = Bank(*outputs(model, x, class_mask))
        source = _with_peer(bank.scores.clone(), linear, x, class_mask)
        model.train()
        for step, rows in enumerate(batches(len(x), schedule, seed, start, steps), start):
            # 2. Once an epoch, and at most every third step, methods with pseudo-labels make them from a full pass.
            if method.refreshes and (step % max(per_epoch, RENEWED) == 0 or step == start):
                targets = method.refresh(x, *outputs(model, x, class_mask), source)

            # 3. Forward, with noise on the input, batch statistics and dropout; absent classes are masked.
            index = rows.to(device)
            clean = x[index]
            noisy = clean + schedule.input_noise * torch.randn(clean.shape, generator=noise).to(device)
            b = model.embed(noisy)
            logits = mask_logits(model.classify(b), class_mask)
            f, p = functional.normalize(b, dim=1), logits.softmax(dim=1)

            # 4. The bank takes the batch in before it is looked up.
            bank.update(index, f, p)

            # 5. The method's loss, and one step of SGD at the annealed rate.
            picked = None if targets is None else targets[index]
            parts = method.loss(Batch(index, b, f, p, logits, bank, picked, step / total))
            loss = sum(parts.values(), torch.zeros((), device=device))
            if loss.requires_grad:
                set_rate(sgd, schedule.rate(step / total))
                sgd.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                sgd.step()
            history.add(step // per_epoch, step, loss, parts, p)
            if on_step is not None:
                on_step(step - start + 1)

    # 6. The last model is the result: choosing an epoch would need target labels.
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        raise ConfigError("The adaptation diverged: weights became infinite.", "Lower the learning rate.")
    model.requires_grad_(True).eval()
    if whole:
        return Adapted(method.conclude(model, Target(x, class_mask, linear, seed), source), history.entries(), steps)
    return Adapted(model, history.entries(), steps)


def conclude(
    adapted: EmotionClassifier,
    published: EmotionClassifier,
    x: Tensor,
    method: Method,
    *,
    seed: int,
    linear: LinearClassifier | None = None,
    class_mask: Tensor | None = None,
) -> nn.Module:
    """End an adaptation that was made in parts, as a federation's is; see :func:`adapt`."""
    if not isinstance(method, Gradient):
        return adapted
    x = x.to(next(adapted.parameters()).device)
    answers = _with_peer(probabilities(published.to(x.device), x, class_mask=class_mask), linear, x, class_mask)
    return method.conclude(adapted, Target(x, class_mask, linear, seed), answers)


def _with_peer(answers: Tensor, linear: LinearClassifier | None, x: Tensor, class_mask: Tensor | None) -> Tensor:
    if linear is None:
        return answers
    return (answers + probabilities(linear.to(x.device), x, class_mask=class_mask)) / 2


def _check(model: EmotionClassifier, x: Tensor, method: Method, mask: Tensor | None, frozen: Collection[str]) -> None:
    if tuple(x.shape[1:]) != model.shape:
        raise UsageError(
            f"The features have shape {tuple(x.shape[1:])}, the model takes {model.shape}.",
            "Extract them with the settings in the bundle.",
        )
    if len(x) < method.minimum:
        raise TooLittleDataError(
            f"The method {method.name} needs at least {method.minimum} utterances, and there are {len(x)}.",
            "Add recordings, or use the method source.",
        )
    if mask is not None and not (mask.shape == (len(model.classes),) and mask.dtype == torch.bool and mask.any()):
        raise UsageError("The class mask does not fit.", f"Name some of {', '.join(model.classes)}.")
    if unknown := set(frozen) - set(model.adaptable()):
        raise UsageError(f"The model has no parameter '{min(unknown)}' to freeze.", "Check the bundle's list.")
