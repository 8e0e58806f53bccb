"""Updates that were sent before, or by another: the wire signatures refuse them, and the round goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch

from fedser.federation.provider import Silence


class Thief:
    """A site that answers with what it should not; ``taken`` holds the replies of the others."""

    def __init__(self, net: Any, sites: Any) -> None:
        self.net, self.sites = net, sites
        self.taken: dict[tuple[str, int], bytes] = {}
        self.there = threading.Condition()
        self.threads = [threading.Thread(target=self._work, args=(name,), daemon=True) for name in sites]
        for thread in self.threads:
            thread.start()

    def answer(self, site: str, number: int, order: bytes) -> bytes:
        with self.there:  # one at a time: dropout draws from the process' own random numbers
            honest = self.sites[site].answer(order)
            self.taken[site, number] = honest
            self.there.notify_all()
            if site == "site-1" and number == 2:
                return self.taken[site, 1]  # its own update of the round before
            if site == "site-3":
                self.there.wait_for(lambda: ("site-2", number) in self.taken, 10)
                return self.taken["site-2", number]
        return honest

    def _work(self, site: str) -> None:
        with self.net.line(site) as line:
            for number in (1, 2, 3):
                while (order := line.receive()) is None:
                    pass
                line.reply(order, self.answer(site, number, order.data))


def test_replayed_and_stolen_updates_are_refused_and_named(network: Any, lab: Any) -> None:
    net = network()
    sites = lab.sites(3)
    for name in sites:
        net.enrol(name)
    provider = lab.provider(sites, transport=net.room)
    thief = Thief(net, sites)
    got = provider.run(lab.start(provider.plan))
    for thread in thief.threads:
        thread.join(10)
    told = {(refusal.round, refusal.site): refusal.code for refusal in provider.refusals}
    assert sorted(told) == [(1, "site-3"), (2, "site-1"), (2, "site-3"), (3, "site-3")]
    assert "another order" in told[2, "site-1"]
    assert all("signature" in told[number, "site-3"] for number in (1, 2, 3))

    class Without:  # the same sites, and nothing of the refused replies
        def __init__(self) -> None:
            self.wired = lab.wired(lab.sites(3))

        def exchange(self, orders: Any) -> Iterator[tuple[str, Any]]:
            for site, reply in self.wired.exchange(orders):
                number = sum(name == site for name, _ in self.wired.orders)
                yield site, Silence("left out") if (number, site) in told else reply

    control = lab.provider(sites, transport=Without())
    assert torch.equal(got, control.run(lab.start(control.plan)))
