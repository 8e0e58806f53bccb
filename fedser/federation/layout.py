"""Named tensors as one flat tensor: what travels is the flat one, its layout stands in the order."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from math import prod

import torch
from torch import Tensor, nn

Layout = tuple[tuple[str, tuple[int, ...]], ...]

_AS_THEY_ARE = (torch.float16, torch.int8, torch.uint32, torch.uint64)
PEER = "linear.weight"  # the shared linear peer's tensor [C, D], beside the network's: its name in the bundle


def layout_of(model: nn.Module, names: Collection[str]) -> Layout:
    """The layout of some parameters, in the model's own order."""
    return tuple((name, tuple(p.shape)) for name, p in model.named_parameters() if name in names)


def elements(layout: Layout) -> int:
    """Number of values that a layout holds."""
    return sum(prod(shape) for _, shape in layout)


def pack(tensors: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Lay tensors one after the other: float32 [elements], on the CPU.

    Raises:
        KeyError: a tensor is missing.
        ValueError: a tensor has another shape.
    """
    parts = []
    for name, shape in layout:
        if tuple(tensors[name].shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensors[name].shape)}, the layout {shape}")
        parts.append(tensors[name].detach().to("cpu", torch.float32).reshape(-1))
    return torch.cat(parts) if parts else torch.zeros(0)


def unpack(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views of a flat tensor [elements] under the layout's names and shapes.

    Raises:
        ValueError: the flat tensor has another length.
    """
    if tuple(flat.shape) != (elements(layout),):
        raise ValueError(f"a flat tensor of shape {tuple(flat.shape)} does not fill the layout")
    parts = torch.split(flat, [prod(shape) for _, shape in layout])
    return {name: part.view(shape) for (name, shape), part in zip(layout, parts, strict=True)}


def network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of an order's tensors that belong to the network."""
    return {name: tensor for name, tensor in tensors.items() if name != PEER}


def norm(flat: Tensor) -> float:
    """L2 norm of a flat tensor, summed in double precision without a copy of that size."""
    return float(torch.linalg.vector_norm(flat, dtype=torch.float64))


def tensor_digest(flat: Tensor) -> str:
    """SHA-256 of a flat tensor's bytes as they travel, in hexadecimal."""
    return hashlib.sha256(raw_bytes(flat)).hexdigest()


def raw_bytes(flat: Tensor) -> memoryview:
    """The bytes of a flat tensor as they travel, little-endian: compressed and masked ones as such, else as float32.

    A view of the tensor's memory where it lies on the CPU in that form.
    """
    flat = flat.detach().cpu()
    if flat.dtype not in _AS_THEY_ARE:
        flat = flat.float()
    values = flat.contiguous().numpy()
    little: memoryview = values.astype(values.dtype.newbyteorder("<"), copy=False).data
    return little.cast("B") if len(values) else memoryview(b"")  # a view without elements has no other form
