from __future__ import annotations

import pytest
import torch

from fedser.compute import device, generator
from fedser.errors import DeviceError


def draw(*parts: int | str) -> list[float]:
    return torch.rand(4, generator=generator(*parts)).tolist()


def test_the_same_path_gives_the_same_stream_and_another_one_another() -> None:
    assert draw(0, "site", 1) == draw(0, "site", 1)
    streams = {tuple(draw(*path)) for path in [(0, 1), (1, 0), ("0", 1), (0, "1"), (0, 1, ""), (0,), ("0\x1fint:1",)]}
    assert len(streams) == 7


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    draw(3)
    assert torch.equal(before, torch.get_rng_state())


def test_devices() -> None:
    assert device("cpu").type == "cpu"
    with pytest.raises(DeviceError, match="no device name"):
        device("toaster")
    with pytest.raises(DeviceError, match="not available"):
        device("cuda:99")
