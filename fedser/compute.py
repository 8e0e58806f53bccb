"""Devices, threads and seeds: one place for what makes a run repeatable."""

from __future__ import annotations

import hashlib

import torch

from fedser.errors import DeviceError


def device(name: str | None = None) -> torch.device:
    """Resolve a device name; without one, the GPU when there is one, else the CPU.

    Raises:
        DeviceError: the name is unknown or the device is not there.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"'{name}' is no device name.", "Use cpu, cuda or cuda:0.") from None
    if chosen.type == "cuda" and not (torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count()):
        raise DeviceError(f"The device {name} is not available here.", "Use --device cpu, or check the GPU driver.")
    return chosen


def one_thread() -> None:
    """Give this process one torch thread.

    The models here are small: more threads only wait for each other, and two busy processes with two threads
    each on two cores ran 20 to 40 times slower than with one each.
    """
    torch.set_num_threads(1)


def generator(*parts: int | str) -> torch.Generator:
    """A CPU random generator seeded by a path of names and numbers, such as ``(seed, "site", 3, "round", 1)``.

    Different paths give independent streams, the same path the same stream on every machine.
    """
    path = repr(parts).encode("utf-8", "surrogatepass")  # quotes and escapes: no two paths look alike
    seed = int.from_bytes(hashlib.sha256(path).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(seed)
