"""Masked sums: is the sum right, what does it cost in seconds and bytes, with dropouts, and with many sites.

``sum``: sites and provider in one process and thread, through the product's own encode, checks, masks and decode, over
a transport that hands bytes on; training is left out (each update is random numbers). Some sites vanish after their
shares, before the upload. The masked mean is compared with the mean of the same sites' exact updates, and bit by bit
with Python's sum of their integers at sampled places; the plain round is that of the same sites without masks.

``network``: stub sites over the real routes and TLS (``benchmarks/network/stub.py``), plain and masked, all processes
on this machine::

    python benchmarks/privacy/masked_sum.py --out out/masked_sum [--sites 10] [--values 10000000] [--dropouts 3]
        [--crowd 50] [--rounds 5] [--quick]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "network"))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from machine import Processes, Results, arguments, free_port, json_lines, say, table
from stub import NORM, make_keys, masked_answer

from fedser import files
from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.compute import one_thread
from fedser.federation import wire
from fedser.federation.layout import tensor_digest
from fedser.federation.plan import Plan
from fedser.federation.provider import Provider, Silence
from fedser.federation.schema import Order, Update
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.secure_site import SecureSite
from fedser.federation.secure_state import SecureState
from fedser.federation.stages import ServerState, apply_update, average, together
from fedser.privacy.settings import MaskingSettings
from fedser.privacy.site_unit import on_grid

PLACES = 1000  # at which the sum is compared bit by bit


class Stub:
    """A site with a given update, and its own seconds."""

    def __init__(self, number: int, values: int) -> None:
        self.name = f"site-{number:03d}"
        self.key = SigningKey(Ed25519PrivateKey.generate())
        self.update = torch.randn(values, generator=torch.Generator().manual_seed(number))
        self.update *= NORM / self.update.norm()
        self.secure = SecureSite(self.name, MaskingSettings(), self.key, SecureState(study="stub"))
        self.seconds = 0.0

    def answer(self, data: bytes, provider: str) -> bytes:
        """Answer any message at once."""
        begin = time.perf_counter()
        asked = wire.read(data, provider).message
        if isinstance(asked, Order) and asked.masking is None:
            digest = tensor_digest(self.update)
            said = Update(1, wire.order_digest(asked), digest, utterances=None, scalars=None)
            reply = wire.encode(said, self.update, self.key)
        else:
            reply = masked_answer(self.secure, asked, self.update, self.key)
        self.seconds += time.perf_counter() - begin
        return reply


class Direct:
    """A transport that hands bytes on and counts them; ``gone`` sites are silent at their order to train."""

    def __init__(self, sites: dict[str, Stub], provider: str, gone: set[str]) -> None:
        self.sites, self.provider, self.gone = sites, provider, gone
        self.down = self.up = self.exchanges = 0

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        """See :class:`fedser.federation.provider.Transport`."""
        self.exchanges += 1
        for site, order in orders:
            self.down += len(order)
            if site in self.gone and isinstance(wire.read(order, self.provider).message, Order):
                yield site, Silence("The site vanished.")
                continue
            reply = self.sites[site].answer(order, self.provider)
            self.up += len(reply)
            yield site, reply
            del order, reply


def round_of(sites: dict[str, Stub], values: int, gone: set[str], masked: bool) -> tuple[dict[str, Any], torch.Tensor]:
    """One round: its figures, and the mean."""
    key = SigningKey(Ed25519PrivateKey.generate())
    transport = Direct(sites, key.public_hex, gone)
    plan = Plan(
        study="stub",
        sites={name: site.key.public_hex for name, site in sites.items()},
        method="ecan",
        options={},
        layout=(("weight", (values,)),),
        schedule=Schedule(steps=2),
        rounds=1,
        quorum=2,
        masking=MaskingTerms() if masked else None,
    )
    node = Provider(plan, key, transport, (together() if masked else average(), apply_update()))
    for site in sites.values():
        site.seconds = 0.0
    begin = time.perf_counter()
    mean, _ = node.round(1, torch.zeros(values), ServerState())
    seconds = time.perf_counter() - begin
    own = [site.seconds for site in sites.values() if site.name not in gone]
    return {
        "seconds": seconds,
        "site_seconds": max(own),
        "provider_seconds": seconds - sum(site.seconds for site in sites.values()),
        "bytes_down": transport.down,
        "bytes_up": transport.up,
        "exchanges": transport.exchanges,
        "refused": len(node.refusals),
    }, mean


def exact(values: int, count: int, dropouts: int) -> dict[str, Any]:
    """Plain and masked round of the same sites, and how far the means are from the exact one."""
    one_thread()
    sites = {site.name: site for site in (Stub(number, values) for number in range(count))}
    gone = set(list(sites)[1 :: max(1, count // max(dropouts, 1))][:dropouts])
    chosen = [site for name, site in sites.items() if name not in gone]
    told: dict[str, Any] = {"survivors": len(chosen)}
    told["plain"], plain = round_of(sites, values, gone, masked=False)
    told["masked"], masked = round_of(sites, values, gone, masked=True)
    mean = torch.zeros(values, dtype=torch.float64)
    for site in chosen:
        mean += site.update.double() / len(chosen)
    terms = MaskingTerms()
    told["error_plain"] = float((plain.double() - mean).abs().max())
    told["error_masked"] = float((masked.double() - mean).abs().max())
    told["error_stated"] = 2.0 ** -(terms.grid + 1)
    places = torch.randperm(values, generator=torch.Generator().manual_seed(1))[:PLACES]
    grid = 2.0**-terms.grid
    steps = [on_grid(site.update, terms.clip, grid)[places.numpy()] for site in chosen]
    sums = [sum(int(part[place]) for part in steps) for place in range(len(places))]
    expected = torch.tensor([total * (grid / len(chosen)) for total in sums], dtype=torch.float64).float()
    told["bit_exact"] = bool(torch.equal(masked[places], expected))
    return told


def crowd(out: Path, sites: int, values: int, rounds: int, processes: int, masked: bool) -> dict[str, Any]:
    """Rounds of many stub sites over the network."""
    folder = out / ("masked" if masked else "plain")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in folder.glob("*.json*"):
        path.unlink()
    port = free_port()
    config = {
        **{"folder": str(folder), "sites": sites, "processes": processes, "values": values, "rounds": rounds},
        **{"port": port, "proxy_port": port, "trace": False, "idle": 0.0, "masked": masked},
    }
    make_keys(folder, sites)
    files.write_text(folder / "config.json", json.dumps(config))
    stub = Path(__file__).resolve().parents[1] / "network" / "stub.py"
    with Processes(folder / "logs") as running:
        running.start("provider", [sys.executable, stub, "provider", folder / "config.json"])
        names = [f"sites-{number}" for number in range(processes)]
        for number, name in enumerate(names):
            running.start(name, [sys.executable, stub, "sites", folder / "config.json", str(number)])
        running.wait(["provider", *names], 900)
    events = [event for event in json_lines(folder / "provider.jsonl") if event["event"] == "round"]
    told = json.loads((folder / "provider.json").read_text())
    return {
        "seconds": [event["seconds"] for event in events],
        "answers": [event["answers"] for event in events],
        "bytes_a_round": told["schema_bytes"] / len(events),
        "peak_mb": told["rss_peak_kb"] / 1024,
    }


def main() -> int:
    """Measure, print, write JSON."""
    given = arguments(
        __doc__,
        ("--sites", {"type": int, "default": 10, "help": "of the sum"}),
        ("--values", {"type": int, "help": "of the sum; 10,000,000, or 1,000,000 with --quick"}),
        ("--dropouts", {"type": int, "default": 3, "help": "sites that vanish before their upload"}),
        ("--crowd", {"type": int, "help": "stub sites of the network; 50, or 8 with --quick; 0 leaves it out"}),
        ("--crowd-values", {"type": int, "default": 10_000, "help": "of each of their updates"}),
        ("--rounds", {"type": int, "default": 5, "help": "over the network"}),
        ("--processes", {"type": int, "default": 2, "help": "that share the stub sites"}),
    )
    values = given.values or (1_000_000 if given.quick else 10_000_000)
    many = (8 if given.quick else 50) if given.crowd is None else given.crowd
    about = {"sites": given.sites, "values": values, "dropouts": given.dropouts, "crowd": many, "rounds": given.rounds}
    results = Results(given.out, about)
    found = results.part("sum", lambda: exact(values, given.sites, given.dropouts))
    say(f"{given.sites} sites, {values:,} values, {given.dropouts} dropouts after the shares, one thread")
    rows = [
        (kind, part["seconds"], part["site_seconds"], part["provider_seconds"], part["bytes_up"], part["bytes_down"])
        for kind, part in ((kind, found[kind]) for kind in ("plain", "masked"))
    ]
    table(("round", "seconds", "slowest site s", "provider s", "bytes up", "bytes down"), rows)
    error, stated = found["error_masked"], found["error_stated"]
    say(f"largest error of the mean: masked {error:.3g}, stated {stated:.3g}, plain {found['error_plain']:.3g}")
    say(f"bit-exact at {PLACES} places: {found['bit_exact']}")
    right = found["bit_exact"] and error <= stated + 1e-9 and found["survivors"] == given.sites - given.dropouts
    if many:
        parts = {
            kind: results.part(
                kind,
                lambda kind=kind: crowd(
                    given.out, many, given.crowd_values, given.rounds, given.processes, kind == "masked"
                ),
            )
            for kind in ("plain", "masked")
        }
        say(f"\n{many} stub sites over the network, {given.crowd_values:,} values, {given.rounds} rounds")
        table(
            ("round", "median s", "longest s", "bytes a round", "provider MB"),
            [
                (kind, statistics.median(p["seconds"]), max(p["seconds"]), p["bytes_a_round"], p["peak_mb"])
                for kind, p in parts.items()
            ],
        )
        right &= all(count == many for part in parts.values() for count in part["answers"])
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
