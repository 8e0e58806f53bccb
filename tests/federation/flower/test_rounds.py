"""Orders and replies over real routes: what arrives, when, and what a site that comes back gets."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from fedser.errors import EnrolmentError, NetworkError
from fedser.federation.provider import Silence


def order(size: int = 1000) -> bytes:
    head = os.urandom(120)
    return len(head).to_bytes(8, "little") + head + os.urandom(size)


def answering(network: Any, site: str, turns: int = 1, **options: Any) -> threading.Thread:
    """A site in a thread that answers each order with the order reversed behind a head."""

    def run() -> None:
        left = turns
        with network.line(site, **options) as line:
            while left:
                got = line.receive()
                if got is not None:
                    line.reply(got, (3).to_bytes(8, "little") + b"abc" + got.data[::-1])
                    left -= 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def die(line: Any) -> None:
    """What a SIGKILL leaves of a line: no word to the provider, no more heartbeats."""
    line._end.set()
    line._client.close()


@pytest.mark.parametrize("size", [0, 1000, 12 << 20])
def test_orders_reach_their_sites_and_replies_come_back(network: Any, size: int) -> None:
    net = network(largest=13 << 20)
    sites = [f"site-{n}" for n in range(3)]
    for site in sites:
        net.enrol(site)
    threads = [answering(net, site, turns=2) for site in sites]
    for _ in range(2):
        payload = os.urandom(size)
        orders = {site: (5).to_bytes(8, "little") + site[-5:].encode() + payload for site in sites}
        replies = dict(net.room.exchange(iter(orders.items())))
        assert replies == {site: (3).to_bytes(8, "little") + b"abc" + data[::-1] for site, data in orders.items()}
    for thread in threads:
        thread.join(10)
    assert not net.records
    assert len(net.room._store) == 0  # type: ignore[arg-type]


def test_a_site_that_does_not_answer_in_time_is_named(network: Any) -> None:
    net = network(deadline=1.5)
    net.enrol("site-1")
    net.enrol("site-2")
    answering(net, "site-1")
    with net.line("site-2"):
        begin = time.monotonic()
        replies = dict(net.room.exchange([("site-1", order()), ("site-2", order()), ("site-3", order())]))
    assert time.monotonic() - begin < 5
    assert isinstance(replies["site-1"], bytes)
    assert "deadline" in replies["site-2"].reason
    assert replies["site-3"] == Silence("The site is not enrolled.")


def test_a_site_that_vanishes_is_not_waited_for(network: Any) -> None:
    net = network(deadline=60, patience=1.0)
    net.enrol("site-1")
    replies = dict(net.room.exchange([("site-1", order())]))
    assert "vanished" in replies["site-1"].reason


def test_a_site_that_lost_its_order_gets_it_again(network: Any) -> None:
    net = network()
    net.enrol("site-1")
    data = order()
    got: dict[str, Any] = {}
    exchange = threading.Thread(target=lambda: got.update(net.room.exchange([("site-1", data)])), daemon=True)
    exchange.start()
    killed = net.line("site-1")
    killed.__enter__()
    letter = killed.receive()
    assert letter is not None
    assert letter.data == data
    die(killed)
    with net.line("site-1") as line:
        again = line.receive()
        assert again is not None
        assert again.data == data
        assert line.reply(again, data)
    exchange.join(10)
    assert got == {"site-1": data}


def test_a_site_killed_while_it_sends_may_send_again(network: Any) -> None:
    net = network(largest=32 << 20)
    net.enrol("site-1")
    data = order(20 << 20)
    got: dict[str, Any] = {}
    exchange = threading.Thread(target=lambda: got.update(net.room.exchange([("site-1", data)])), daemon=True)
    exchange.start()
    killed = net.line("site-1")
    killed.__enter__()
    letter = killed.receive()
    assert letter is not None
    sent = 0

    def dies(*arguments: Any) -> bool:
        nonlocal sent
        sent += 1
        if sent > 2:
            raise KeyboardInterrupt
        return type(killed)._push(killed, *arguments)

    killed._push = dies  # type: ignore[method-assign]
    answer = order(20 << 20)
    with pytest.raises(KeyboardInterrupt):
        killed.reply(letter, answer)
    die(killed)
    with net.line("site-1") as line:
        again = line.receive()
        assert again is not None
        assert line.reply(again, answer)
    exchange.join(10)
    assert got == {"site-1": answer}


def test_replies_take_turns(network: Any) -> None:
    net = network(largest=12 << 20, intake=12 << 20)
    sites = [f"site-{n}" for n in range(3)]
    for site in sites:
        net.enrol(site)
        answering(net, site)
    most = 0
    orders = {site: order(10 << 20) for site in sites}
    for _ in net.room.exchange(iter(orders.items())):
        most = max(most, sum(bool(mail.reply) for mail in net.room.binding.open.values()))
    assert most <= 1


def test_a_late_reply_is_told_so(network: Any) -> None:
    net = network(deadline=1.0)
    net.enrol("site-1")
    with net.line("site-1") as line:
        got: dict[str, Any] = {}
        exchange = threading.Thread(target=lambda: got.update(net.room.exchange([("site-1", order())])), daemon=True)
        exchange.start()
        letter = line.receive()
        exchange.join(10)
        assert "deadline" in got["site-1"].reason
        assert letter is not None
        assert line.reply(letter, order()) is False
        assert line.receive() is None


def test_a_revoked_site_is_shut_out_at_once(network: Any) -> None:
    net = network()
    net.enrol("site-1")
    with net.line("site-1") as line:
        got: dict[str, Any] = {}
        exchange = threading.Thread(target=lambda: got.update(net.room.exchange([("site-1", order())])), daemon=True)
        exchange.start()
        assert line.receive() is not None
        net.room.expel("site-1")
        exchange.join(10)
        assert got["site-1"].reason == "The site was revoked, or has left."
        with pytest.raises(EnrolmentError):
            line.receive()
    with pytest.raises(EnrolmentError), net.line("site-1"):
        pass


def test_a_provider_that_is_not_there_or_not_the_pinned_one(network: Any, tmp_path: Any) -> None:
    net = network()
    net.enrol("site-1")
    net.address = "127.0.0.1:9"
    with pytest.raises(NetworkError, match="cannot be reached"), net.line("site-1"):
        pass


def test_polls_end_when_the_provider_stops(network: Any) -> None:
    net = network(hold=20)
    net.enrol("site-1")
    with net.line("site-1") as line:
        threading.Timer(0.5, net.room.close).start()
        begin = time.monotonic()
        with pytest.raises(NetworkError, match="503"):
            line.receive()
        assert time.monotonic() - begin < 5
