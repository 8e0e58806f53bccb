"""Sixty SIGKILLs: provider and sites are killed at seeded moments of 5-round studies and started again at once.

Real nodes over TLS on loopback: the packaged bundle and three small sites (12 recordings each of EMOVO where the
corpora are there, else of synthetic speech). A kill waits for its round, then for its seeded delay; kills of one run
may meet a node that is just starting again. Ends with 1 when, in any run, the joint tensors or a personal model are
not bit-identical to those of the run without kills, a site's audit log has two updates for one round and attempt or
a broken chain, or a node needs more than 15 s until it is back at work: it serves, or waits for orders. Where no
other node was down meanwhile, a provider's orders must be out by then too. Each run is kept: the script goes on where
it was stopped::

    python benchmarks/network/crash.py --out out/crash [--kills 60] [--seed 0] [--corpora DIR] [--quick]
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from machine import Processes, Results, arguments, say, table
from nodes import Study, emovo_sites, synthetic_sites
from safetensors.torch import load_file, save_file

from fedser.errors import FedserError
from fedser.federation import audit

ROUNDS = 5
LIMIT = 15.0  # seconds until a node is back at work
# Steps enough for rounds of about a second, so that kills meet every part of one.
SETTINGS = (f"rounds={ROUNDS}", "schedule.steps=1000", "schedule.batch_size=16", "seed=3")
PAIRS = (("f1", "m1"), ("f2", "m2"), ("f3", "m3"))
ORDERING = ("round", "finish", "done")
AT_WORK = {"provider": ("waiting", *ORDERING), "site": ("waiting", "working", "finished")}


@dataclass
class Kill:
    """One kill: which node, so many seconds after a round began; and what came of it."""

    victim: str
    round: int
    delay: float
    at: str = ""  # what the provider was doing
    began: float = 0.0  # Unix time of the new start
    back: float | None = None  # seconds from it until the node is at work
    orders: float | None = None  # until a provider's orders are out
    note: str = ""


def main() -> int:
    """Kill, compare, print, write JSON."""
    given = arguments(
        __doc__,
        ("--kills", {"type": int, "help": "60"}),
        ("--seed", {"type": int, "default": 0, "help": "of the kills"}),
        ("--corpora", {"type": Path, "default": os.environ.get("FEDSER_CORPORA"), "help": "folder with emovo"}),
    )
    wanted = given.kills or (6 if given.quick else 60)
    os.environ["FEDSER_CACHE"] = str(given.out / "cache")
    sites = emovo_sites(given.corpora, given.out, PAIRS, 12) if given.corpora else synthetic_sites(given.out, 3)
    results = Results(given.out, {"settings": SETTINGS, "seed": given.seed, "emovo": bool(given.corpora)})
    calm = results.part("calm", lambda: run(given.out, sites, []))
    kills, broken, number = list[dict[str, Any]](), list[str](calm["broken"]), 0
    while len(kills) < wanted:
        number += 1
        plan = draw(random.Random(f"{given.seed}/{number}"), list(sites), wanted - len(kills))  # noqa: S311
        found = results.part(f"run-{number}-{len(plan)}", lambda plan=plan: run(given.out, sites, plan))  # type: ignore[misc]
        kills += [kill | {"run": number} for kill in found["kills"]]
        broken += [f"run {number}: {line}" for line in found["broken"]]
        outcome = "; ".join(found["broken"]) or "as without kills"
        say(f"run {number}: {len(found['kills'])} kills, {found['seconds']:.0f} s, {outcome}")
    columns = ("run", "victim", "after round began", "provider was", "back after s", "orders out after s", "note")
    rows = []
    for kill in kills:
        moment = f"{kill['round']} + {kill['delay']:.2f} s"
        took = (_seconds(kill["back"]), _seconds(kill["orders"]))
        rows.append((kill["run"], kill["victim"], moment, kill["at"], *took, kill["note"]))
    table(columns, rows)
    back = sorted(kill["back"] for kill in kills if kill["back"] is not None)
    victims = dict(Counter(kill["victim"] for kill in kills))
    say(f"{len(kills)} kills: {victims}; run without kills {calm['seconds']:.0f} s")
    say(f"back at work after {back[len(back) // 2]:.1f} s (median), {back[-1]:.1f} s (longest)")
    for line in broken:
        say(f"VIOLATION {line}")
    results.write(violations=broken)
    return 1 if broken else 0


def draw(chance: random.Random, sites: list[str], most: int) -> list[Kill]:
    """Two to six kills of one run, in the order of their rounds."""
    count = min(most, chance.randint(2, 6))
    kills = [
        Kill(chance.choice(["provider", "provider", *sites]), chance.randint(1, ROUNDS + 1), chance.uniform(0, 0.9))
        for _ in range(count)
    ]
    return sorted(kills, key=lambda kill: (kill.round, kill.delay))


@dataclass
class Watch:
    """A study that runs, and the kills that it still has before it."""

    study: Study
    kills: list[Kill]
    done: list[Kill] = field(default_factory=list)
    reached: dict[int, float] = field(default_factory=dict)  # when the provider told of a round first

    def step(self) -> None:
        """Look, kill what is due, note who is back."""
        status = _json(self.study.provider / "status.json")
        phase, number = str(status.get("phase")), int(status.get("round") or 0) + (status.get("phase") == "finish")
        for earlier in range(1, number + 1):
            self.reached.setdefault(earlier, time.monotonic())
        kill = self.kills[0] if self.kills else None
        if kill and time.monotonic() >= self.reached.get(kill.round, float("inf")) + kill.delay:
            self.kills.pop(0)
            if self.study.processes.kill(kill.victim):
                self._again(kill, f"{phase} {number}")
        for other in self.done:
            own = AT_WORK["provider" if other.victim == "provider" else "site"]
            if other.back is None and not other.note and self._told(other, own):
                other.back = time.time() - other.began
            if other.orders is None and not other.note and other.victim == "provider" and self._told(other, ORDERING):
                other.orders = time.time() - other.began

    def _again(self, kill: Kill, at: str) -> None:
        for other in self.done:
            waiting = other.back is None or (other.orders is None and other.victim == "provider")
            if other.victim == kill.victim and waiting:
                other.note = "killed again soon"
        kill.at, kill.began = at, time.time()
        self.study.again(kill.victim)
        self.done.append(kill)

    def _told(self, kill: Kill, phases: tuple[str, ...]) -> bool:
        """Whether a node that was started again told of one of these phases, or has ended well."""
        code = self.study.processes.running[kill.victim].poll()
        if code is not None:
            kill.note = "" if code == 0 else f"ended with code {code}"
            return code == 0
        path = self.study.folder / kill.victim / "status.json"
        return path.stat().st_mtime > kill.began and _json(path).get("phase") in phases

    @property
    def over(self) -> bool:
        """Whether every node has ended, or one has ended badly."""
        codes = [process.poll() for name, process in self._nodes().items()]
        return None not in codes or any(codes)

    def _nodes(self) -> Mapping[str, Any]:
        names = ("provider", *self.study.sites)
        return {name: self.study.processes.running[name] for name in names}


def run(out: Path, sites: Mapping[str, Path], plan: list[Kill]) -> dict[str, Any]:
    """One study with its kills; what was wrong with it is in ``broken``."""
    for log in (out / "logs").glob("*.log"):
        log.unlink()
    with Processes(out / "logs") as processes:
        study = Study(out / "study", processes, sites, SETTINGS)
        study.invite("crash")
        begin = time.monotonic()
        study.start()
        study.join_all()
        watch = Watch(study, plan)
        while not watch.over and time.monotonic() - begin < 600:
            watch.step()
            time.sleep(0.01)
        watch.step()
        study.finish(1)
    broken = [f"{kill.victim} {kill.note}" for kill in watch.done if kill.note.startswith("ended")]
    broken += [f"{k.victim} was back after {k.back:.1f} s" for k in watch.done if k.back is not None and k.back > LIMIT]
    broken += [f"its orders were out after {k.orders:.1f} s" for k in watch.done if _late(k, watch.done)]
    broken += _compare(out, study) + _twice(study)
    return {"kills": [vars(kill) for kill in watch.done], "broken": broken, "seconds": time.monotonic() - begin}


def _compare(out: Path, study: Study) -> list[str]:
    """What differs from the run without kills, which is the first one."""
    calm = out / "calm"
    found = {"joint": study.joint()} | {name: study.personal(name) for name in study.sites}
    if not (calm / "joint.safetensors").exists():
        calm.mkdir(parents=True, exist_ok=True)
        for name, tensors in found.items():
            save_file(tensors, calm / f"{name}.safetensors")
    known = {name: load_file(calm / f"{name}.safetensors") for name in found}
    return [
        f"{name} is not the model of the run without kills"
        for name, tensors in found.items()
        if known[name].keys() != tensors.keys() or not all(torch.equal(known[name][k], t) for k, t in tensors.items())
    ]


def _twice(study: Study) -> list[str]:
    """Sites that computed a finished round again, or whose log is not whole."""
    broken = []
    for name in study.sites:
        try:
            records = list(audit.read(study.site(name) / "audit.jsonl"))
        except FedserError as error:
            broken.append(f"{name}: {error}")
            continue
        made = Counter((r["round"], r["attempt"]) for r in records if r["event"] in ("update", "finished"))
        broken += [f"{name} computed round {key} {count} times" for key, count in made.items() if count > 1]
        left = {key[0] for key in made} | {record["round"] for record in records if record["event"] == "resent"}
        broken += [f"{name} never answered round {n}" for n in range(1, ROUNDS + 2) if n not in left]
    return broken


def _late(kill: Kill, others: list[Kill]) -> bool:
    """Whether a provider's orders were late, though no site was down meanwhile."""
    if kill.orders is None or kill.orders <= LIMIT:
        return False
    end = kill.began + kill.orders
    return not any(kill.began - LIMIT < other.began < end for other in others if other is not kill)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _json(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


if __name__ == "__main__":
    sys.exit(main())
