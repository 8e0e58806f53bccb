"""Private adaptation inside one site: DP-SGD whose samples are groups of speakers or utterances.

Steps are a public number and all of them are made: there is no early stop, and no choice among results. What comes
out is a function of the weights that came in and of noised sums, so it may be released, and anything computed of it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedser.adapt import Method, Schedule
from fedser.adapt.method import Gradient
from fedser.adapt.optimiser import optimiser, set_rate
from fedser.errors import ConfigError, PrivacyError
from fedser.models import EmotionClassifier
from fedser.privacy.accountant import noise_of
from fedser.privacy.group_losses import gradients_of, supports
from fedser.privacy.group_optimiser import GroupOptimiser
from fedser.privacy.groups import KEY_BYTES, Groups, views
from fedser.privacy.randomness import bernoulli, random_bytes
from fedser.privacy.settings import PrivacySettings, Trained

HELD = 8_000_000  # gradient values in memory at a time, 32 MB
Coins = Callable[[float, int], NDArray[np.bool_]]


@dataclass(frozen=True)
class GroupSettings:
    """How a private step is made; everything in it is public and fixed before the first step.

    Attributes:
        clip: how far one unit may move the sum of a step, L2.
        noise: standard deviation of the noise on each value of the sum, in clips.
        rate: chance of each unit to be in a step.
        groups: the public number of groups: the hash's range, and with ``rate`` the normaliser.
        size: utterances of a group in a step.
        together: whether the hash puts several units into a group; else each unit is one.
        trained: which parameters are trained, see :func:`trained_names`.
    """

    clip: float = 1.0
    noise: float = 1.0
    rate: float = 0.1
    groups: int = 500
    size: int = 20
    together: bool = False
    trained: Trained = "affine_head"

    @classmethod
    def of(cls, privacy: PrivacySettings) -> GroupSettings:
        """The steps that a site's policy calls for: a speaker is a group, utterances are put together."""
        return cls(
            clip=privacy.clip,
            noise=noise_of(privacy),
            rate=privacy.rate,
            groups=privacy.groups,
            size=privacy.size,
            together=privacy.unit == "utterance",
            trained=privacy.trained,
        )


def trained_names(model: EmotionClassifier, method: Gradient, which: Trained, allowed: Collection[str]) -> list[str]:
    """Names of the parameters that private steps train, in the model's order.

    The noise's length grows with the square root of their number, the signal's hardly: a few well-placed ones, the
    scales and shifts of the normalisation layers and the head, are worth more than all of them.

    Args:
        model: the classifier.
        method: what it trains without privacy is ``all``.
        which: ``all``, ``bottleneck``, ``head``, ``affine`` (of normalisation layers) or ``affine_head``.
        allowed: names that may change.

    Raises:
        PrivacyError: none is left.
    """
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.GroupNorm, torch.nn.LayerNorm)
    owners = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, kinds))
    prefixes: tuple[str, ...] = {"bottleneck": ("bottleneck.",), "head": ("head.",), "affine": owners}.get(
        which, (*owners, "head.")
    )
    chosen = method.trainable(model) if which == "all" else [n for n in model.adaptable() if n.startswith(prefixes)]
    names = [name for name in model.adaptable() if name in set(chosen) & set(allowed)]
    if not names:
        raise PrivacyError(
            f"None of the parameters that privacy.trained: {which} names may change here.",
            "Set privacy.trained: all, or let more tensors leave (leave: all_but_first).",
        )
    return names


class PrivateSteps:
    """A model under private steps, one at a time.

    Args:
        model: the classifier, as it was released; it is copied.
        x: normalised features [N, \\*shape]; a row depends on its own unit alone, see
            :func:`fedser.privacy.group_features.normaliser_for`.
        identities: each row's unit; None leaves it out.
        method: one that :func:`fedser.privacy.group_losses.supports` accepts.
        schedule: learning rates, momentum, weight decay and noise on the features; its lengths are not looked at.
        settings: of the steps.
        class_mask: bool [C], true for the classes that can occur; None means all.
        allowed: names of parameters that may change; all adaptable ones when None.
        key: secret of the assignment and of the views; fresh from the operating system when None, which is right
            for everything but tests.

    Raises:
        PrivacyError: the method's loss can't be stated inside a group, or nothing is left to train.
    """

    def __init__(
        self,
        model: EmotionClassifier,
        x: Tensor,
        identities: Sequence[str | None],
        method: Method,
        schedule: Schedule,
        settings: GroupSettings,
        *,
        class_mask: Tensor | None = None,
        allowed: Collection[str] | None = None,
        key: bytes | None = None,
    ) -> None:
        if not isinstance(method, Gradient) or not supports(method):
            raise PrivacyError(
                f"The loss of the method {method.name} cannot be stated inside a group.",
                "Use the method ecan or aad, or the site as the privacy unit.",
            )
        self.model = copy.deepcopy(model).eval()  # batch normalisation uses the published statistics throughout
        self.names = trained_names(self.model, method, settings.trained, allowed or model.adaptable())
        self.groups = Groups.of(identities, settings.groups, key or random_bytes(KEY_BYTES), together=settings.together)
        self._x = x.to(next(self.model.parameters()).device)
        self._schedule = schedule
        self._settings = settings
        self._parameters = [self.model.get_parameter(name) for name in self.names]
        self._optimiser = GroupOptimiser(
            optimiser(self.model, self.names, schedule),
            radius=self.groups.radius(settings.clip),
            std=settings.noise * settings.clip,
            normaliser=settings.rate * settings.groups,
        )
        self._gradients = gradients_of(self.model, method, tuple(self.names), class_mask)
        self._at_once = max(1, HELD // sum(parameter.numel() for parameter in self._parameters))

    def step(self, number: int, total: int, coins: Coins = bernoulli) -> None:
        """Make step ``number`` of a schedule of ``total``."""
        set_rate(self._optimiser.original_optimizer, self._schedule.rate(number / total))
        self._accumulate(number, total, coins)
        self._optimiser.add_noise()
        self._optimiser.original_optimizer.step()

    def clipped_sum(self, number: int = 0, total: int = 1, coins: Coins = bernoulli) -> Tensor:
        """The sum that the noise of step ``number`` would be added to, flat float64 [P]; no step is made."""
        self._accumulate(number, total, coins)
        return self._optimiser.clipped_sum()

    def _accumulate(self, number: int, total: int, coins: Coins) -> None:
        own = self._settings
        drawn = self.groups.drawn(coins(own.rate, len(self.groups.units)))
        made = views(self._x, self.groups, drawn, own.size, self._schedule.input_noise, number)
        self._optimiser.begin()  # a step without any group is a step: its sum is zero
        for part in torch.split(made, self._at_once):
            if len(part):  # a split of nothing is one part of nothing
                found = self._gradients(part, number / total)
                for name, parameter in zip(self.names, self._parameters, strict=True):
                    parameter.grad_sample = found[name]  # type: ignore[attr-defined]
                self._optimiser.clip_and_accumulate()


def private_steps(
    model: EmotionClassifier,
    x: Tensor,
    identities: Sequence[str | None],
    method: Method,
    schedule: Schedule,
    settings: GroupSettings,
    *,
    steps: int,
    start: int = 0,
    total: int | None = None,
    class_mask: Tensor | None = None,
    allowed: Collection[str] | None = None,
    on_step: Callable[[int, EmotionClassifier], None] | None = None,
) -> EmotionClassifier:
    """Adapt a released model by a fixed number of private steps; arguments as :class:`PrivateSteps` takes them.

    Args:
        steps: of this call; every one of them costs privacy.
        start: the first one's number within a schedule of ``total``.
        total: ``start + steps`` when None.
        on_step: called after each step with the steps made and the model.

    Returns:
        The adapted classifier in evaluation mode, with the statistics that came in.

    Raises:
        PrivacyError: see :class:`PrivateSteps`.
        ConfigError: the weights became infinite.
    """
    whole = start + steps if total is None else total
    run = PrivateSteps(model, x, identities, method, schedule, settings, class_mask=class_mask, allowed=allowed)
    for number in range(start, start + steps):
        run.step(number, whole)
        if on_step is not None:
            on_step(number - start + 1, run.model)
    if not all(bool(tensor.isfinite().all()) for tensor in run.model.state_dict().values()):
        raise ConfigError("The adaptation diverged: weights became infinite.", "Lower the learning rate.")
    return run.model.requires_grad_(True).eval()
