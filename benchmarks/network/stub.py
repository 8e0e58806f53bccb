"""Nodes without training, for the figures of the network itself; started by the other scripts, with a JSON file.

``python stub.py provider CONFIG`` is the provider's node as ``fedser-server start`` runs it (mailroom, bound
routes, guard and TLS in one process; rounds with the fixed-point mean), over a model of so many random values and
without files. ``python stub.py sites CONFIG NUMBER`` is one process of stub sites: each has its own line and node
key, and answers an order at once with the same random update.

CONFIG: ``folder`` (secrets and results, owner-only), ``sites``, ``processes``, ``values``, ``rounds``, ``port``,
``proxy_port`` (where the sites connect to), ``trace`` (whether times are written down), ``idle`` (seconds of polling
before the first round), ``masked`` (whether updates travel under masks).
"""

from __future__ import annotations

import json
import os
import resource
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedser_server.guard import Guard
from fedser_server.node import _fleet_ways as fleet_ways  # the product's own limits
from fedser_server.serving import Serving
from fedser_server.state import State
from fedser_server.tls import LiveContext, client_context

from fedser import files
from fedser.adapt import Schedule
from fedser.bundle.keys import SigningKey
from fedser.errors import NetworkError
from fedser.federation import wire
from fedser.federation.flower import environment
from fedser.federation.layout import tensor_digest
from fedser.federation.provider import Answered, Plan, Provider, Refused, Silence
from fedser.federation.schema import Code, Order, Update
from fedser.federation.secure_schema import Asked
from fedser.federation.secure_settings import MaskingTerms
from fedser.federation.secure_site import SecureSite
from fedser.federation.secure_state import SecureState
from fedser.federation.stages import apply_update, average, together
from fedser.privacy.settings import MaskingSettings
from fedser.privacy.site_unit import on_grid

NORM = 1.0  # of each stub update


def make_keys(folder: Path, sites: int) -> None:
    """Write the keys of all stub nodes, for this machine's benchmark alone."""
    plain = serialization.NoEncryption()
    made = {}
    for number in range(sites):
        node = ec.generate_private_key(ec.SECP384R1())
        pem = node.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        reply = Ed25519PrivateKey.generate().private_bytes_raw()
        made[f"site-{number:03d}"] = {"node": pem.decode(), "reply": reply.hex()}
    files.write_text(folder / "keys.json", json.dumps(made), mode=0o600)


def provider(config: Mapping[str, Any]) -> None:
    """Run the rounds; ``provider.jsonl`` gets a line a round, ``provider.json`` the sum."""
    folder = Path(config["folder"])
    environment.prepare(folder / "flower")
    from fedser.federation.flower.credentials import Credentials
    from fedser.federation.flower.mailroom import Mailroom
    from fedser.federation.flower.routes import Routes

    state = State.open(folder / "provider", study="stub")
    state.remember(address=f"127.0.0.1:{config['port']}")
    live = LiveContext(state.certificates())
    files.write_text(folder / "ca.pem", state.ca)
    keys = {name: _keys(held) for name, held in json.loads((folder / "keys.json").read_text()).items()}
    largest = 4 * config["values"]
    room = Mailroom(largest, deadline=1200.0)
    fleet = Routes(room)
    known = {_pem(node): name for name, (node, _) in keys.items()}
    for key, name in known.items():
        room.admit(name, key)
    credentials, refused = Credentials(), list[Mapping[str, Any]]()
    guard = Guard(
        fleet_ways(fleet, largest),
        lambda headers: known[credentials.check(headers, known)],
        lambda peer: True,
        refused.append,
    )
    transport = Traced(room, config["trace"])
    ring = room.ring
    room.ring = lambda node: (transport.posted.setdefault(room.site_of(node) or "", time.monotonic()), ring(node))[1]
    plan = Plan(
        study="stub",
        sites={name: reply.public_hex for name, (_, reply) in keys.items()},
        method="ecan",
        options={},
        layout=(("weight", (config["values"],)),),
        schedule=Schedule(steps=config["rounds"] + 1),
        rounds=config["rounds"],
        quorum=config["sites"],
        masking=MaskingTerms() if config.get("masked") else None,
    )
    join = together() if plan.masking else average()
    node = Provider(plan, state.order_key, transport, (join, apply_update(0.0, 1.0)), observe=transport.observe)
    with Serving(guard, live, "127.0.0.1", config["port"]):
        while len(room.online()) < config["sites"]:
            time.sleep(0.05)
        _note(folder, "online", None)
        time.sleep(config["idle"])
        _note(folder, "begin", None)
        start = torch.randn(
            config["values"], generator=torch.Generator().manual_seed(99)
        )  # Flower sends equal chunks once
        node.run(start, lambda number, *_: transport.end(folder, number))
        room.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told = {"rss_peak_kb": peak, "refused": len(refused), "schema_bytes": transport.schema_bytes}
    files.write_text(folder / "provider.json", json.dumps(told) + "\n")


@dataclass
class Traced:
    """A transport that notes when orders were posted and how long they took."""

    room: Any
    trace: bool
    posted: dict[str, float] = field(default_factory=dict)
    begin: float = 0.0
    answers: list[Answered] = field(default_factory=list)
    schema_bytes: int = 0  # of all orders and replies so far

    def exchange(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes | Silence]]:
        """One exchange's orders and replies; a round of masked updates has five."""
        self.posted.clear()
        self.begin = self.begin or time.monotonic()
        for site, reply in self.room.exchange(self._counted(orders)):
            self.schema_bytes += len(reply) if isinstance(reply, bytes) else 0
            yield site, reply
            del reply

    def _counted(self, orders: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
        for site, order in orders:
            self.schema_bytes += len(order)
            yield site, order

    def observe(self, event: Answered | Refused) -> None:
        """A reply was taken in."""
        if isinstance(event, Refused):
            raise SystemExit(f"{event.site} was refused in round {event.round}: {event.code}")
        self.answers.append(event)

    def end(self, folder: Path, number: int) -> None:
        """A round is over: aggregated, and its tensors are there."""
        told = {"seconds": time.monotonic() - self.begin, "answers": len(self.answers)}
        _note(folder, "round", number, **told, **({"posted": dict(self.posted)} if self.trace else {}))
        self.answers.clear()
        self.begin = 0.0


def sites(config: Mapping[str, Any], number: int) -> None:
    """Run one process' share of the sites; ``sites-N.jsonl`` gets a line an order where times are traced."""
    folder = Path(config["folder"])
    environment.prepare(folder / "flower")
    keys = {name: _keys(held) for name, held in json.loads((folder / "keys.json").read_text()).items()}
    own = sorted(keys)[number :: config["processes"]]
    while not (folder / "ca.pem").exists():
        time.sleep(0.1)
    context = client_context([(folder / "ca.pem").read_text()])
    update = torch.randn(config["values"], generator=torch.Generator().manual_seed(number))
    update *= NORM / update.norm()
    digest = tensor_digest(update)
    order_key = (folder / "provider" / "keys" / "order-key.pub").read_text().strip()
    lines = list[dict[str, Any]]()
    threads = [
        threading.Thread(target=_site, args=(config, name, keys[name], context, order_key, update, digest, lines))
        for name in own
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files.write_text(folder / f"sites-{number}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    told = {"rss_peak_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    files.write_text(folder / f"sites-{number}.json", json.dumps(told) + "\n")


def _site(
    config: Mapping[str, Any],
    name: str,
    keys: tuple[ec.EllipticCurvePrivateKey, SigningKey],
    context: ssl.SSLContext,
    order_key: str,
    update: torch.Tensor,
    digest: str,
    lines: list[dict[str, Any]],
) -> None:
    """One stub site, until the order to finish."""
    from fedser.federation.flower.site import Line

    address = f"127.0.0.1:{config['proxy_port']}"
    secure = SecureSite(name, MaskingSettings(), keys[1], SecureState(study="stub"))
    while True:
        try:
            with Line(address, context, keys[0], limit=4 * config["values"] + (1 << 21)) as line:
                while True:
                    mail = line.receive()
                    if mail is None:
                        continue
                    received = time.monotonic()
                    order = wire.read(mail.data, order_key).message
                    if not isinstance(order, Order):
                        line.reply(mail, masked_answer(secure, order, update, keys[1]))
                        continue
                    masked = order.masking is not None
                    reply = (
                        masked_answer(secure, order, update, keys[1])
                        if masked
                        else _answer(order, update, digest, keys[1])
                    )
                    ready = time.monotonic()
                    line.reply(mail, reply)
                    if config["trace"]:
                        lines.append({"site": name, "round": order.round, "received": received, "ready": ready})
                    if order.phase == "finish":
                        return
        except NetworkError:
            time.sleep(0.2)


def masked_answer(secure: SecureSite, asked: wire.Message, update: torch.Tensor, key: SigningKey) -> bytes:
    """A stub site's part in a masked sum: the product's own, around a fixed update."""
    said: bytes | Code | None = None
    if isinstance(asked, Asked):
        said = secure.answer(asked)
    elif isinstance(asked, Order):
        said = secure.admit(asked)
        if said is None and asked.masking is not None:
            terms = asked.masking.terms
            masked, payload, state = secure.masked(asked, on_grid(update, terms.clip, 2.0**-terms.grid))
            secure.keep(state)
            said = wire.encode(masked, payload, key)
    if not isinstance(said, bytes):
        raise SystemExit(f"{secure.site} refused: {said}")
    return said


def _answer(order: Order, update: torch.Tensor, digest: str, key: SigningKey) -> bytes:
    payload = update if order.phase == "train" else torch.zeros(0)
    made = Update(
        protocol=1,
        order_digest=wire.order_digest(order),
        tensor_digest=digest if order.phase == "train" else tensor_digest(payload),
        utterances=None,
        scalars=None,
    )
    return wire.encode(made, payload, key)


def _keys(held: Mapping[str, str]) -> tuple[ec.EllipticCurvePrivateKey, SigningKey]:
    node = serialization.load_pem_private_key(held["node"].encode(), None)
    assert isinstance(node, ec.EllipticCurvePrivateKey)
    return node, SigningKey(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(held["reply"])))


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


def _note(folder: Path, event: str, number: int | None, **more: object) -> None:
    with (folder / "provider.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"event": event, "round": number, "time": time.monotonic(), **more}) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = json.loads(Path(sys.argv[2]).read_text())
    if sys.argv[1] == "provider":
        provider(given)
    else:
        sites(given, int(sys.argv[3]))
