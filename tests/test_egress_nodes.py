"""A site's node talks to its provider and to nobody else: each site in a network namespace, every frame looked at.

The provider lives in a namespace of its own; each site's has one cable, to the provider. A resolver is configured and
everything else is routed down the same cable, so that any look-up or connection would leave as a packet and be seen.
The control is a third site in the same study, whose client has one call of Flower's telemetry put in.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fedser_server.commands.invite import invite

from fedser.demo.corpus import CorpusPlan, write_corpus

PORT = 9443
RESOLVER = "203.0.113.53"  # of a network for documentation: nobody answers there

# Runs in a site's namespace: one line for each frame that leaves it, through any interface.
SNIFFER = """
import json, socket, struct, sys
OUTGOING, LOOPBACK = 4, "lo"
with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as tap:
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
    print("ready", flush=True)
    while True:
        data, (interface, kind, way, *_) = tap.recvfrom(128)
        if way != OUTGOING:
            continue
        told = {"interface": interface, "ethertype": kind}
        if kind == 0x0800:
            head = 4 * (data[0] & 15)
            told["protocol"], told["to"] = data[9], socket.inet_ntoa(data[16:20])
            told["port"] = struct.unpack("!H", data[head + 2 : head + 4])[0] if data[9] in (6, 17) else None
        print(json.dumps(told), flush=True)
"""

# The client as it is; and with one call of Flower's telemetry, past the switch that the product sets.
CLIENT = "from fedser_client.cli import main; main()"
LEAKING = (
    """
from fedser.federation.flower import environment
prepare = environment.prepare
def leak(home):
    prepare(home)
    from flwr.supercore import telemetry
    telemetry.FLWR_TELEMETRY_ENABLED = "1"
    telemetry.event(telemetry.EventType.PING)
environment.prepare = leak
"""
    + CLIENT
)
SITES = {"site-0": CLIENT, "site-1": CLIENT, "site-2": LEAKING}
ROUNDS = 20


@dataclass
class Network:
    """The namespaces, and the processes in them."""

    folder: Path
    name: str
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def lay(self) -> None:
        """One namespace for the provider, one for each site, a cable between each and it; no ARP, no IPv6."""
        (self.folder / "resolv.conf").write_text(f"nameserver {RESOLVER}\noptions timeout:1 attempts:1\n")
        self.space("provider")
        for number, site in enumerate(SITES):
            self.space(site)
            ends = ((f"fp{number}{self.name}", "provider", 1), (f"fs{number}{self.name}", site, 2))
            ip("link", "add", ends[0][0], "type", "veth", "peer", "name", ends[1][0])
            for end, space, own in ends:
                inside = ("-n", self.full(space))
                ip("link", "set", end, "address", f"02:00:00:00:{number:02x}:{own:02x}", "netns", self.full(space))
                ip(*inside, "addr", "add", f"10.77.{number}.{own}/24", "dev", end)
                ip(*inside, "link", "set", end, "up")
                there = (f"10.77.{number}.{3 - own}", "lladdr", f"02:00:00:00:{number:02x}:{3 - own:02x}")
                ip(*inside, "neigh", "replace", *there, "dev", end, "nud", "permanent")
            ip("-n", self.full(site), "route", "add", "default", "via", f"10.77.{number}.1")

    def space(self, name: str) -> None:
        ip("netns", "add", self.full(name))
        self.run(name, "sh", "-c", "for s in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $s; done")
        ip("-n", self.full(name), "link", "set", "lo", "up")

    def full(self, name: str) -> str:
        return f"fedser-{self.name}-{name}"

    def run(self, space: str, *command: object) -> None:
        subprocess.run(self.inside(space, *command), check=True, capture_output=True, text=True)

    def inside(self, space: str, *command: object) -> list[str]:
        """A command in a namespace, with a resolver that is reached over the cable."""
        own = f'mount --bind {self.folder / "resolv.conf"} /etc/resolv.conf && exec "$@"'
        return ["ip", "netns", "exec", self.full(space), "sh", "-c", own, "sh", *map(str, command)]

    def start(self, space: str, *arguments: object, log: str) -> subprocess.Popen[bytes]:
        """Start Python in a namespace."""
        surroundings = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        surroundings |= {"OMP_NUM_THREADS": "1", "FEDSER_CACHE": str(self.folder / "cache")}
        surroundings["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        command = self.inside(space, sys.executable, *arguments)
        with (self.folder / log).open("w") as output:
            process = subprocess.Popen(
                command, env=surroundings, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self.started.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.folder / name).read_text()

    def close(self) -> None:
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for name in ("provider", *SITES):
            subprocess.run(["ip", "netns", "delete", self.full(name)], capture_output=True, check=False)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the 'ip' command (iproute2)")
    made = Network(tmp_path_factory.mktemp("network"), secrets.token_hex(3))
    try:
        try:
            made.lay()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces are not permitted here: {error.stderr.strip()}")
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def seen(network: Network, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The frames that left each site's namespace during one study of all sites."""
    folder, state = tmp_path_factory.mktemp("study"), tmp_path_factory.mktemp("states") / "provider"
    for number, name in enumerate(SITES):
        plan = CorpusPlan(name, speakers=2, utterances=12, seconds=(0.6, 0.7), first=300 + 10 * number)
        write_corpus(folder / name, plan, seed=3)
        invite(name, folder / f"{name}.invite", state, f"10.77.{number}.1:{PORT}")
    where = ("--host", "0.0.0.0", "--port", PORT, "--state", state)  # noqa: S104 - inside the namespace
    much = ("--sites", len(SITES), "--rounds", ROUNDS)
    steps = (f"schedule.steps={ROUNDS + 1}", "schedule.batch_size=16", "personal=0.02")
    provider = network.start("provider", "-m", "fedser_server", "start", *where, *much, *steps, log="provider")
    taps = [network.start(name, "-c", SNIFFER, log=f"tap-{name}") for name in SITES]
    wait_until(lambda: all("ready" in network.log(f"tap-{name}") for name in SITES))
    wait_until(lambda: "waiting" in network.log("provider"))
    nodes = {"provider": provider}
    for name, client in SITES.items():
        own = ("--data", folder / name, "--state", state.parent / name)
        nodes[name] = network.start(name, "-c", client, "join", folder / f"{name}.invite", *own, log=name)
    for name, process in nodes.items():
        assert process.wait(120) == 0, network.log(name)[-3000:]
    time.sleep(0.2)  # for the last frames
    for tap in taps:
        os.killpg(tap.pid, signal.SIGTERM)
        tap.wait()
    assert f"round {ROUNDS} of {ROUNDS}: {len(SITES)} of {len(SITES)} sites" in network.log("provider")
    return [[json.loads(line) for line in network.log(f"tap-{name}").splitlines()[1:]] for name in SITES]


def wait_until(there: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def strays(seen: list[dict[str, Any]], provider: str) -> list[dict[str, Any]]:
    """Frames that are not TCP to the provider's address and port."""
    return [f for f in seen if (f.get("protocol"), f.get("to"), f.get("port")) != (6, provider, PORT)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_site_sends_packets_to_its_provider_alone_over_20_rounds(
    seen: list[list[dict[str, Any]]], number: int
) -> None:
    assert len(seen[number]) > ROUNDS * 10  # the tap works: every round takes many packets
    assert strays(seen[number], f"10.77.{number}.1") == []


def test_one_call_of_flowers_telemetry_is_noticed(seen: list[list[dict[str, Any]]]) -> None:
    found = strays(seen[2], "10.77.2.1")
    assert {(frame["protocol"], frame["to"], frame["port"]) for frame in found} == {(17, RESOLVER, 53)}
