"""What the loop steps with: the optimiser, the order of batches, and the randomness of one call."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fedser import compute
from fedser.adapt.schedule import Schedule
from fedser.errors import UsageError


def optimiser(model: nn.Module, names: Collection[str], schedule: Schedule) -> torch.optim.SGD:
    """SGD over the named parameters; all others are set to need no gradient.

    Raises:
        UsageError: no parameter is left.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names:
            scale = schedule.backbone_scale if name.startswith("encoder.") else 1.0
            groups.setdefault(scale, []).append(parameter)
    if not groups:
        raise UsageError("Nothing is left to adapt: all parameters are frozen.", "Freeze fewer of them.")
    return torch.optim.SGD(
        [{"params": parameters, "scale": scale} for scale, parameters in groups.items()],
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.momentum > 0,
        weight_decay=schedule.weight_decay,
        fused=True,
    )


def set_rate(optimiser: torch.optim.SGD, rate: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def batches(utterances: int, schedule: Schedule, seed: int, start: int, steps: int) -> Iterator[Tensor]:
    """The rows of each step's batch, int64 [B], on the CPU.

    An epoch's order depends on seed and epoch alone, so a call that begins at ``start`` goes on where the one
    before it ended. A site smaller than a batch gives all its rows in each step; else an epoch's last
    incomplete batch waits for the next shuffle.
    """
    size, per_epoch = schedule.batch_size, schedule.per_epoch(utterances)
    for step in range(start, start + steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0 or step == start:
            order = torch.randperm(utterances, generator=compute.generator("adapt", "order", seed, epoch))
        yield order[place * size : (place + 1) * size]


@contextmanager
def seeded_dropout(device: torch.device, *parts: int | str) -> Iterator[None]:
    """Seed the global generators, from which dropout draws, and put them back afterwards."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        seed = compute.generator(*parts).initial_seed()
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
