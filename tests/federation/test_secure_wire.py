"""The provider learns the sum, and never an update: the whole wire and all that the provider holds, looked through.

The same search finds each site's integers where the masks are switched off, which shows that it would see them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from types import CellType, FunctionType, GeneratorType, MethodType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import chi2

from fedser.federation import secure_provider, wire
from fedser.federation.secure_context import own_seed, pair_seed, sign_of
from fedser.federation.secure_schema import Consent, MaskedUpdate, MaskKeys, MaskShares, Revealed
from fedser.federation.secure_sum import MaskedSum
from fedser.federation.stages import ServerState
from fedser.privacy import masking, shamir
from tests.federation.masks import PROVIDER, Post, Stub, name, provider, start, stubs

SIZE = 4096
RUN = 8  # neighbouring values that count as an update found


class Watched(Post):
    """A transport that looks at all that the provider holds at each message."""

    def __init__(self, sites: dict[str, Stub], **options: Any) -> None:
        super().__init__(sites, **options)
        self.node: Any = None
        self.found: set[str] = set()
        self.looked = 0

    def exchange(self, orders: Any) -> Iterator[Any]:
        for item in super().exchange(orders):
            self.look()
            yield item
        self.look()

    def look(self) -> None:
        for array in arrays([self.node, *frames()], stop={id(self)}):
            self.found |= {site for site, stub in self.sites.items() if holds(array, stub)}
            self.looked += 1


def frames() -> Iterator[dict[str, Any]]:
    """The local variables of all the library's functions that are running now."""
    frame = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("fedser."):
            yield frame.f_locals
        frame = frame.f_back  # type: ignore[assignment]


def arrays(roots: list[Any], stop: set[int]) -> Iterator[NDArray[Any]]:
    """All arrays, tensors and byte strings that can be reached, but not through what stands for the sites."""
    seen, left = set(stop), list(roots)
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, type):
            continue
        seen.add(id(thing))
        if isinstance(thing, np.ndarray):
            yield thing
        elif isinstance(thing, torch.Tensor):
            yield thing.numpy()
        elif isinstance(thing, bytes | bytearray):
            yield np.frombuffer(thing, dtype=np.uint8)
        elif isinstance(thing, GeneratorType):
            left += list(thing.gi_frame.f_locals.values()) if thing.gi_frame else []
        elif isinstance(thing, dict | list | tuple | set | CellType | FunctionType | MethodType):
            left += gc.get_referents(thing) if not isinstance(thing, FunctionType) else list(thing.__closure__ or ())
        elif type(thing).__module__.startswith("fedser."):
            left += gc.get_referents(thing)


def holds(array: NDArray[Any], stub: Stub) -> bool:
    return contains(np.ascontiguousarray(array).tobytes(), stub.integers)


def contains(data: bytes, integers: NDArray[np.int64]) -> bool:
    """Whether some neighbouring integers, or the update that they stand for, occur in bytes, in any width."""
    forms = [integers[:RUN].astype(width) for width in ("<i4", "<i8", "<f4", "<f8")]
    forms += [(integers[:RUN] * 2.0**-20).astype(width) for width in ("<f4", "<f8")]
    return any(form.tobytes() in data for form in forms)


def run(silent: dict[str, str] | None = None) -> tuple[Watched, dict[str, Stub]]:
    sites = stubs(4, SIZE)
    post = Watched(sites, silent=silent or {})
    post.node = provider(sites, post, SIZE)

    class Looking(MaskedSum):
        """A sum that has the provider's memory looked at while an update is taken in, and while masks go."""

        def add(self, site: str, payload: torch.Tensor) -> None:
            post.look()
            super().add(site, payload)
            post.look()

        def mean(self) -> torch.Tensor:
            post.look()
            return super().mean()

    with patch.object(secure_provider, "MaskedSum", Looking):
        after, _ = post.node.round(1, start(SIZE), ServerState())
    post.look()
    assert len(after) == SIZE
    return post, sites


@pytest.mark.parametrize("silent", [{}, {name(3): "train after"}, {name(2): "survivors"}])
def test_no_single_update_is_on_the_wire_or_in_the_providers_memory(silent: dict[str, str]) -> None:
    post, sites = run(silent)
    assert post.found == set()
    assert post.looked >= 40
    for _, _, order, reply in post.passed:
        assert not any(contains(data, stub.integers) for data in (order, reply) for stub in sites.values())


def test_without_masks_the_search_finds_every_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "add_stream", lambda total, seed, sign=1: None)
    post, sites = run()
    assert post.found == set(sites)
    seen = {site for site, _, _, reply in post.passed if contains(reply, sites[site].integers)}
    assert seen == set(sites)


def test_the_wire_holds_the_messages_of_the_table_and_no_other() -> None:
    post, sites = run({name(3): "train"})
    kinds = [type(wire.read(reply, sites[site].key.public_hex).message) for site, _, _, reply in post.passed]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        MaskKeys: 4,
        MaskShares: 4,
        MaskedUpdate: 3,
        Consent: 3,
        Revealed: 3,
    }


def payloads(post: Watched, sites: dict[str, Stub]) -> dict[str, NDArray[np.uint32]]:
    found = {}
    for site, _, _, reply in post.passed:
        opened = wire.read(reply, sites[site].key.public_hex)
        if isinstance(opened.message, MaskedUpdate):
            found[site] = opened.flat.numpy()
    return found


def uniform(values: NDArray[np.uint32]) -> bool:
    """χ² over the values of each of the four bytes apart, each at a chance of 1e-11."""
    bytes_ = values.astype("<u4").view(np.uint8).reshape(-1, 4)
    expected = len(values) / 256
    counts = [np.bincount(bytes_[:, place], minlength=256) for place in range(4)]
    return all(float(((count - expected) ** 2 / expected).sum()) < float(chi2.isf(1e-11, 255)) for count in counts)


def test_a_single_masked_update_looks_uniform_and_so_do_differences() -> None:
    post, sites = run()
    found = payloads(post, sites)
    assert not uniform((sites[name(0)].integers % 2**32).astype(np.uint32))
    for site, values in found.items():
        assert uniform(values)
        assert uniform(values - sites[site].integers.astype(np.uint32))  # the mask alone, if the update were known
        assert uniform(values - found[name(0)]) or site == name(0)


def test_a_late_update_stays_hidden_though_its_pair_masks_are_known() -> None:
    """The double mask: a site is left out, its key is revealed, and then its masked update arrives after all."""
    post, sites = run({name(3): "train after"})
    late = payloads(post, sites)[name(3)].copy()
    told = [wire.read(reply, sites[site].key.public_hex).message for site, _, _, reply in post.passed]
    revealed = {site: said for (site, *_), said in zip(post.passed, told, strict=True) if isinstance(said, Revealed)}
    places = {name(number): number + 1 for number in range(4)}
    shares = {places[site]: bytes.fromhex(said.keys[0]) for site, said in revealed.items()}
    key = shamir.recover(shares, 3, lambda found: True)  # what the provider recovers of the site
    keys = {site: said for (site, *_), said in zip(post.passed, told, strict=True) if isinstance(said, MaskKeys)}
    task = sites[name(0)].secure.state.task
    for peer in (name(0), name(1), name(2)):
        seed = pair_seed(key, keys[peer].agreement, task, (name(3), peer))
        masking.add_stream(late, seed, -sign_of(name(3), peer))
    assert uniform(late)
    assert not contains(late.tobytes(), sites[name(3)].integers)
    state = sites[name(3)].kept[1]  # with its seed, which no share told, it would come out
    masking.add_stream(late, own_seed(bytes.fromhex(state.seed), task, name(3)), -1)
    assert contains(late.tobytes(), sites[name(3)].integers)


def test_what_colluding_sites_learn_is_the_sum_of_the_others() -> None:
    """The docs say so: all others together take their own updates off the sum, and the rest is one update."""
    post, sites = run()
    total = np.round(post.node.round(2, start(SIZE), ServerState())[0].double().numpy() * 2**20 * 4).astype(np.int64)
    others = sum(stub.integers for site, stub in sites.items() if site != name(0))
    assert np.abs(total - others - sites[name(0)].integers).max() <= 1  # float32's own rounding of the mean


def test_orders_tell_all_sites_the_same_but_their_names_and_boxes() -> None:
    post, _ = run()
    asked = [wire.read(order, PROVIDER.public_hex).message for _, _, order, _ in post.passed]
    assert len({type(message) for message in asked}) == 5
    assert len(asked) == 20
