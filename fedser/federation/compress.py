"""Updates in fewer bytes: float16, or 8-bit integers with one scale a tensor.

Rounding is to the nearest, ties to even, and never stochastic: the same update must give the same bytes when an order
is tried again, random bits would be one more thing that leaves the site unseen, and an unbiased rounding is worth
little where all sites start from the same tensors and the error of a round (at most half a step of 1/127 of a
tensor's largest change) is small beside the spread between sites.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fedser.errors import WireError
from fedser.federation.layout import Layout, elements
from fedser.federation.layout import norm as measure
from fedser.federation.schema import Encoding, Update

DTYPES: dict[Encoding, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "i8": torch.int8}
LARGEST = 127  # of an 8-bit value; −128 is never written
_TRIES = 8
_HINT = "Treat the message as hostile: no site of this version writes it."
Scales = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Packed:
    """An update as it travels.

    Attributes:
        payload: [P], of the encoding's type.
        scales: for ``i8``, number of values and scale of each tensor; None otherwise.
    """

    payload: Tensor
    scales: Scales | None = None


def compress(flat: Tensor, layout: Layout, encoding: Encoding) -> Packed:
    """Write an update in an encoding.

    Args:
        flat: float32 [P].
        layout: of P values; each of its tensors has its own scale.
        encoding: see :class:`~fedser.federation.schema.Order`.
    """
    if encoding != "i8":
        return Packed(flat.to(DTYPES[encoding]))
    sizes = [prod(shape) for _, shape in layout]
    parts, scales = [torch.zeros(0, dtype=torch.int8)], []
    for part in torch.split(flat, sizes):
        scale = float((part.abs().max() / LARGEST).float())
        steps = torch.round(part.double() / scale) if scale else torch.zeros(len(part))
        parts.append(steps.clamp(-LARGEST, LARGEST).to(torch.int8))
        scales.append((len(part), scale))
    return Packed(torch.cat(parts), tuple(scales))


def restore(packed: Packed) -> Tensor:
    """The update that a payload stands for, float32 [P].

    Raises:
        WireError: the scales do not cover the payload, or the payload holds what no site writes.
    """
    if packed.scales is None:
        return packed.payload.float()
    sizes = [size for size, _ in packed.scales]
    if sum(sizes) != len(packed.payload) or bool((packed.payload < -LARGEST).any()):
        raise WireError("The scales do not fit the 8-bit tensor.", _HINT)
    parts = [torch.zeros(0)]
    for part, (_, scale) in zip(torch.split(packed.payload, sizes), packed.scales, strict=True):
        if not scale and bool(part.any()):
            raise WireError("A tensor of scale 0 holds values.", _HINT)
        parts.append(part.float() * scale)
    return torch.cat(parts)


def unpacked(update: Update, payload: Tensor) -> Tensor:
    """The float32 [P] that an update and the tensor beside it stand for.

    Raises:
        WireError: the tensor is not of the update's encoding, or its scales do not fit.
    """
    if payload.dtype != DTYPES[update.encoding] or (update.encoding == "i8") != (update.scales is not None):
        raise WireError("The tensor is not in the encoding that the update names.", _HINT)
    return restore(Packed(payload, update.scales))


def within(flat: Tensor, layout: Layout, encoding: Encoding, norm: float) -> Packed | None:
    """Write an update so that what the provider restores has an L2 norm of at most ``norm``.

    Args:
        flat: float32 [P]; scaled down where it is longer, also by rounding.
        layout: of P values, or any when P is 0.
        encoding: of the order.
        norm: the site's clipping norm.

    Returns:
        None where the encoding cannot hold the update.
    """
    layout = layout if elements(layout) == len(flat) else ()
    for turn in range(_TRIES):
        packed = compress(flat, layout, encoding)
        length = measure(restore(packed))
        if length <= norm:
            return packed
        if length == float("inf"):
            return None
        margin = 2.0 ** (2 * turn - 20)  # grows to 1/64: a coarse grid may round the first tries up again
        flat = (flat.double() * (norm / length * (1 - margin))).float()
    return None
