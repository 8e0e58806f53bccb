"""Seconds of one step over groups: all groups at once, a Python loop over groups, and the plain step without privacy.

All three compute on the same utterances with the same method and change the same parameters; the first two clip one
gradient a group and add noise, the third is a step of the ordinary loop over one batch of as many utterances, with its
own bank. The defaults are those of the recommended policy: 20 utterances a speaker, and as many speakers as its coins
draw of 500. Processor time of one thread, the median of ``--repeat`` runs in turn, so that a busy machine slows all;
each is the second of two steps in a row, so that none pays for giving back the memory of another kind's::

    python benchmarks/privacy/group_step.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fedser.adapt import Bank, Batch, Schedule, make
from fedser.adapt.method import Gradient
from fedser.adapt.optimiser import optimiser
from fedser.compute import generator, one_thread
from fedser.models import EmotionClassifier, ModelSettings, initialise
from fedser.privacy.group_losses import group_loss
from fedser.privacy.group_steps import GroupSettings, PrivateSteps, trained_names
from fedser.privacy.groups import views
from fedser.privacy.randomness import gaussian
from fedser.privacy.settings import Trained

CLASSES = ("anger", "fear", "happiness", "neutral", "sadness")
WIDTH = 134
SCHEDULE = Schedule(learning_rate=0.1)


def main() -> int:
    """Print a table; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=125)
    parser.add_argument("--size", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=7)
    given = parser.parse_args()
    one_thread()
    lines = [
        "| method, trained | at once | loop | plain | loop / at once | at once / plain |",
        "|---|---|---|---|---|---|",
    ]
    kept = True
    for name in ("ecan", "aad"):
        for trained in ("affine_head", "head", "bottleneck", "all"):
            fast, slow, plain = measured(name, trained, given.groups, given.size, given.repeat)
            told = f"{slow / fast:.1f} | {fast / plain:.2f}"
            lines.append(
                f"| {name}, {trained} | {1e3 * fast:.1f} ms | {1e3 * slow:.1f} ms | {1e3 * plain:.1f} ms | {told} |"
            )
            kept &= trained != "affine_head" or (slow >= 5 * fast and fast <= 3 * plain)
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if kept else 1


def measured(name: str, trained: Trained, groups: int, size: int, repeat: int) -> tuple[float, float, float]:
    """Median seconds of the three kinds of step, run in turn so that a busy machine slows all of them."""
    model = EmotionClassifier(ModelSettings(), (WIDTH,), CLASSES)
    initialise(model, generator("group step"))
    x = torch.randn(groups * size, WIDTH, generator=generator("group step", "x"))
    method = make(name, {"freeze_head": False} if name == "ecan" else {})
    assert isinstance(method, Gradient)
    units = [str(row // size) for row in range(len(x))]
    settings = GroupSettings(rate=1.0, groups=groups, size=size, trained=trained)
    private = PrivateSteps(model, x, units, method, SCHEDULE, settings)
    steps = (
        lambda: private.step(0, 1, coins=lambda _, count: np.ones(count, dtype=bool)),
        looped(model, method, private, x, settings),
        plainly(model, method, x, trained),
    )
    taken: list[list[float]] = [[], [], []]
    for _ in range(repeat):
        for times, step in zip(taken, steps, strict=True):
            step()
            begin = time.process_time()
            step()
            times.append(time.process_time() - begin)
    fast, slow, plain = (statistics.median(times) for times in taken)
    return fast, slow, plain


def looped(
    model: EmotionClassifier, method: Gradient, private: PrivateSteps, x: Tensor, settings: GroupSettings
) -> Callable[[], None]:
    """The same step, group after group."""
    parameters = [model.get_parameter(name) for name in private.names]
    sgd = optimiser(model, private.names, SCHEDULE)
    model.eval()

    def step() -> None:
        drawn = private.groups.drawn(np.ones(len(private.groups.units), dtype=bool))
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for own in views(x, private.groups, drawn, settings.size, SCHEDULE.input_noise, 0):
            b = model.embed(own)
            gradients = torch.autograd.grad(group_loss(method, b, model.classify(b)), parameters)
            length = torch.stack([gradient.norm() for gradient in gradients]).norm()
            for summed, gradient in zip(total, gradients, strict=True):
                summed += gradient * min(1.0, settings.clip / max(float(length), 1e-12))
        for parameter, summed in zip(parameters, total, strict=True):
            noise = torch.from_numpy(gaussian(summed.numel(), settings.noise)).float()
            parameter.grad = (summed + noise.view(summed.shape)) / settings.groups
        sgd.step()

    return step


def plainly(model: EmotionClassifier, method: Gradient, x: Tensor, trained: Trained) -> Callable[[], None]:
    """A step of the ordinary loop: one batch, noise on it, one gradient."""
    model.train()
    sgd = optimiser(model, trained_names(model, method, trained, model.adaptable()), SCHEDULE)
    index = torch.arange(len(x))

    def step() -> None:
        model.train()
        b = model.embed(x + SCHEDULE.input_noise * torch.randn(x.shape))
        logits = model.classify(b)
        f, p = functional.normalize(b, dim=1), logits.softmax(dim=1)
        loss = torch.stack(list(method.loss(Batch(index, b, f, p, logits, Bank(b, p), None, 0.0)).values())).sum()
        sgd.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        sgd.step()
        model.eval()

    return step


if __name__ == "__main__":
    sys.exit(main())
