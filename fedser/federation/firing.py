"""Which units of a hidden layer single out a few utterances: the mark of weights that read inputs out of an update.

The gradient of a unit's weights is a sum over the utterances for which the unit fires. A unit that fires for one
utterance alone writes that utterance's input into the update (Fowl et al. 2022, "Robbing the Fed", arXiv
2110.13057); so do two units that fire for the same utterances but one, as the difference of their gradients. The
same paper's bins are such pairs: equal weights, and biases on a grid.

Both are counted, over the site's own utterances, after each ReLU: units that fire for some utterances but fewer than
max(2, ``share`` · N), and units whose set of utterances differs from another unit's (or from none) by that few.
Honest models have such units too, the more the fewer utterances there are, so a site compares with the signed
bundle's own count on the same data, and gives a margin. Over 30,000 layers of orders in honest federations (ECAN,
SHOT and AaD, ten rounds, default and trained bundles, layers that stay adapted by the site; sites of 8 to 294
utterances of EmoDB, EMOVO, RAVDESS and URDU) the first share was at most 0.8 points of 100 above the bundle's, and
none from 16 utterances on. The second was at most 19.5 points above it at up to 32 utterances, 10.5 at up to 48,
4.7 at up to 64, 2.0 at up to 100 and 0.8 beyond. Hence margins of 2 and of 25 points at up to 32 utterances; beyond,
the first times 32/N and the second times (32/N)².

Bins over a whole layer of the default bundle, within the radius, were noticed at each of 53 sites of 18 to 168
utterances (at 16 of 18 sites of 8 to 80), bins in a quarter of its units at 51, in a tenth at 15: a server that is
content with few utterances gets them.

What it does not see: fewer trap units than the margins, sums of more than two units, softmax outputs that
saturate for all utterances but a few, and, in trained layers of a pretrained encoder, units that fire for a few
frames of every utterance. Below eight utterances it cannot tell and says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedser.models.pretrained import Units

FEWEST = 8  # utterances below which every unit fires for a few
STEADY = 32  # utterances beyond which the margins shrink, as such units become rarer
SLACK = (2, 4)  # units of either kind above the bundle's that a small layer may always have
_ROWS = 256  # utterances of one pass
_UNITS = 1024  # units of one block of pairs


@dataclass(frozen=True)
class Layer:
    """A hidden layer's counts: its units, those that fire alone for a few utterances, those that do beside another."""

    units: int
    alone: int
    pairs: int


def layers(model: nn.Module, x: Tensor, share: float) -> tuple[Layer, ...]:
    """Count the units of each hidden layer that single out a few utterances.

    Args:
        model: in evaluation mode, features [B, \\*shape].
        x: the site's features [N, \\*shape].
        share: of the N utterances; fewer than max(2, share · N) of them are a few.
    """
    few = max(2, math.ceil(share * len(x)))
    return tuple(_count(fired, few) for fired in patterns(model, x))


def suspicious(found: Sequence[Layer], signed: Sequence[Layer], utterances: int, alone: float, pairs: float) -> bool:
    """Whether a layer singles out utterances by more units than the signed bundle's does.

    Args:
        found: counts of the model that came.
        signed: counts of the bundle's own model on the same utterances.
        utterances: N, on which both were counted.
        alone, pairs: margins of either kind, as shares of the layer's units, at ``STEADY`` utterances or fewer.
    """
    alone *= min(1.0, STEADY / utterances)
    pairs *= min(1.0, STEADY / utterances) ** 2
    return any(
        layer.alone > own.alone + max(SLACK[0], alone * layer.units)
        or layer.pairs > own.pairs + max(SLACK[1], pairs * layer.units)
        for layer, own in zip(found, signed, strict=True)
    )


@torch.no_grad()
def patterns(model: nn.Module, x: Tensor) -> list[Tensor]:
    """For each ReLU in turn: for which utterances which units fire, bool [N, units]; a channel fires anywhere.

    So do, before them, the units of the pretrained layers that are trained, at any frame.
    """
    device = next(model.parameters()).device
    parts: list[list[Tensor]] = []
    with _watching(model) as watched:
        for rows in torch.split(x, _ROWS):
            with _Listening() as heard:
                model(rows.to(device))
            parts.append(heard.fired)
    return [torch.cat(list(layer)) for layer in [*watched, *zip(*parts, strict=True)]]


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Collect for each layer of ``Units`` which of them fire for which utterances, in however many passes."""
    layers = [module for module in model.modules() if isinstance(module, Units)]
    found: list[list[Tensor]] = [[] for _ in layers]

    def hook(place: int) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _layer, _inputs, result: found[place].append((result > 0).any(dim=1))

    handles = [layer.register_forward_hook(hook(place)) for place, layer in enumerate(layers)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class _Listening(TorchFunctionMode):
    """Hears every ReLU, whether a module or a function applies it."""

    def __init__(self) -> None:
        super().__init__()
        self.fired: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        if func is functional.relu and isinstance(result, Tensor):
            self.fired.append((result > 0).flatten(2).any(dim=2) if result.ndim > 2 else result > 0)
        return result


def _count(fired: Tensor, few: int) -> Layer:
    on = fired.float()
    firing = on.sum(dim=0)
    nearest = torch.where(firing > 0, firing, torch.inf)
    for start in range(0, len(firing), _UNITS):  # blocks: the pairs of a wide layer do not fit into memory
        block = slice(start, start + _UNITS)
        apart = firing[block, None] + firing[None] - 2 * on[:, block].T @ on
        apart = torch.where(apart > 0.5, apart, torch.inf)  # equal units tell nothing beside each other
        nearest[block] = torch.minimum(nearest[block], apart.min(dim=1).values)
    alone = (firing > 0) & (firing < few)
    return Layer(len(firing), int(alone.sum()), int((nearest < few).sum()))
