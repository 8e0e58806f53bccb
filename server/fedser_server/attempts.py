"""How often a peer may try: so many attempts a minute for one address, and so many for all together."""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, deque
from collections.abc import Callable

WINDOW = 60.0  # seconds


class Attempts:
    """Counts attempts in a sliding minute; its memory is bounded by the attempts that it lets through.

    Args:
        each: attempts of one peer address (of one /64 network, for IPv6).
        together: attempts of all peers.
        clock: seconds that never go back.
    """

    def __init__(self, each: int = 10, together: int = 60, clock: Callable[[], float] = time.monotonic) -> None:
        self._each, self._together, self._clock = each, together, clock
        self._taken: deque[tuple[float, str]] = deque()
        self._count: Counter[str] = Counter()
        self._told: dict[str, float] = {}

    def take(self, peer: str) -> bool:
        """Whether this peer may try now; a refused attempt does not count."""
        self._forget()
        name = network(peer)
        if len(self._taken) >= self._together or self._count[name] >= self._each:
            return False
        self._taken.append((self._clock(), name))
        self._count[name] += 1
        return True

    def worth_telling(self, peer: str) -> bool:
        """Whether a refusal of this peer should be recorded: once a minute each, so that no flood fills a disk."""
        self._forget()
        name = network(peer)
        if name in self._told or len(self._told) >= self._together:
            return False
        self._told[name] = self._clock()
        return True

    def _forget(self) -> None:
        before = self._clock() - WINDOW
        while self._taken and self._taken[0][0] <= before:
            _, name = self._taken.popleft()
            self._count[name] -= 1
            if not self._count[name]:
                del self._count[name]
        self._told = {name: moment for name, moment in self._told.items() if moment > before}


def network(peer: str) -> str:
    """What counts as one peer: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if address.version == 4:
        return str(address)
    mapped = address.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))
