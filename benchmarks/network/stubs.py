"""Many sites at one provider: its processor, memory, delivery times, and whether anything grows over many rounds.

Stub sites (see ``stub.py``: own line and node key, an answer at once, 100 values) in a few processes of threads,
on the same machine as the provider, so their own processor time is in the rounds' seconds. Delivery is the time
from an order being posted to its site holding all of it. ``--soak`` runs 5,000 rounds of 20 sites instead, samples
memory, open files and threads of every process each 100 rounds, and fits a line to each after the first seven minutes
(the provider remembers each request's header for its window of 310 s): ends with 1 when one grows. A finished part is
kept; a soak that is stopped begins anew::

    python benchmarks/network/stubs.py --out out/stubs [--sites 100] [--rounds 20] [--soak] [--quick]
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import Processes, Results, arguments, free_port, json_lines, memory, processor_seconds, say, table
from stub import make_keys

from fedser import files

GROWTH = {"rss_kb": 1024.0, "files": 0.5, "threads": 0.5}  # a line may rise by so much in 1,000 rounds
WARM = 420.0  # seconds that are left out of the lines
VALUES = 100


def main() -> int:
    """Measure, print, write JSON."""
    given = arguments(
        __doc__,
        ("--sites", {"type": int, "help": "stub sites; 100, or 20 in a soak"}),
        ("--rounds", {"type": int, "help": "20, or 5000 in a soak"}),
        ("--processes", {"type": int, "default": 4, "help": "that share the sites"}),
        ("--idle", {"type": float, "default": 30.0, "help": "seconds of polling that are measured first"}),
        ("--soak", {"action": "store_true", "help": "many rounds: does anything grow?"}),
    )
    sites = given.sites or (20 if given.soak else 100)
    usual = (200, 5000) if given.soak else (5, 20)
    rounds = given.rounds or usual[0 if given.quick else 1]
    idle = 0.0 if given.soak else 5.0 if given.quick else given.idle
    every = max(1, min(100, rounds // 20))
    results = Results(given.out, {"sites": sites, "rounds": rounds, "soak": given.soak, "quick": given.quick})
    found = results.part("stubs", lambda: measure(given.out, sites, rounds, given.processes, idle, every, given.soak))
    return soaked(found) if given.soak else crowd(found, sites)


def measure(out: Path, sites: int, rounds: int, processes: int, idle: float, every: int, soak: bool) -> dict[str, Any]:
    """Run it, and sample every process at each ``every`` rounds."""
    folder = out / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    port = free_port()
    config = {
        "folder": str(folder),
        "sites": sites,
        "processes": processes,
        "values": VALUES,
        "rounds": rounds,
        "port": port,
        "proxy_port": port,
        "trace": not soak,
        "idle": idle,
    }
    make_keys(folder, sites)
    files.write_text(folder / "config.json", json.dumps(config))
    stub = Path(__file__).with_name("stub.py")
    samples: list[dict[str, Any]] = []
    with Processes(folder / "logs") as running:
        running.start("provider", [sys.executable, stub, "provider", folder / "config.json"])
        names = [f"sites-{number}" for number in range(processes)]
        for number, name in enumerate(names):
            running.start(name, [sys.executable, stub, "sites", folder / "config.json", str(number)])
        for done in _progress(running, folder / "provider.jsonl", rounds):
            if done % every == 0:
                samples += [_sample(name, running.running[name].pid, done) for name in ("provider", *names)]
                if soak and done % (10 * every) == 0:
                    last = samples[-1 - processes]
                    mb = last["rss_kb"] / 1024
                    say(f"round {done}: {mb:.0f} MB, {last['files']} files, {last['threads']} threads")
        running.wait(["provider", *names], 120)
    events = json_lines(folder / "provider.jsonl")
    told: dict[str, Any] = {"samples": samples, "seconds": [e["seconds"] for e in events if e["event"] == "round"]}
    told |= json.loads((folder / "provider.json").read_text())
    if not soak:
        told["delivery"] = _delivery(events, [line for name in names for line in json_lines(folder / f"{name}.jsonl")])
        told["answers"] = [e["answers"] for e in events if e["event"] == "round"]
    return told


def _progress(running: Processes, path: Path, rounds: int) -> Any:  # noqa: ANN401 - a generator of numbers
    """Yield −1 once all sites are online, 0 after the idle time, then each round's number, none left out late."""
    size, seen, told = 0, 0, -2
    while told < rounds:
        if (code := running.running["provider"].poll()) is not None and path.stat().st_size == size:
            if code == 0:
                return
            raise SystemExit(f"the provider ended with code {code}:\n{running.log('provider')[-2000:]}")
        time.sleep(0.05)
        if not path.exists() or path.stat().st_size == size:
            continue
        size = path.stat().st_size
        events = json_lines(path)
        for event in events[seen:]:
            told = event["round"] if event["event"] == "round" else -1 if event["event"] == "online" else 0
            yield told
        seen = len(events)


def _sample(name: str, pid: int, number: int) -> dict[str, Any]:
    process = Path(f"/proc/{pid}")
    return {
        "process": name,
        "round": number,
        "time": time.monotonic(),
        "cpu": processor_seconds(pid),
        "rss_kb": memory(pid),
        "files": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }


def _delivery(events: list[dict[str, Any]], lines: list[dict[str, Any]]) -> list[float]:
    posted = {(event["round"], site): at for event in events for site, at in event.get("posted", {}).items()}
    return sorted(
        line["received"] - posted[line["round"], line["site"]]
        for line in lines
        if (line["round"], line["site"]) in posted
    )


def crowd(found: dict[str, Any], sites: int) -> int:
    """Print the figures of many sites."""
    own = [sample for sample in found["samples"] if sample["process"] == "provider"]
    polling = _share([sample for sample in own if sample["round"] <= 0])
    working = _share([sample for sample in own if sample["round"] >= 0])
    delivery, seconds = np.array(found["delivery"]), found["seconds"]
    rows = [
        ("sites, rounds", f"{sites}, {len(seconds)}"),
        ("answers a round", f"{min(found['answers'])} to {max(found['answers'])}"),
        ("round, median s", f"{statistics.median(seconds):.2f} (first {seconds[0]:.2f}, longest {max(seconds):.2f})"),
        ("delivery p50, p95 s", f"{np.quantile(delivery, 0.5):.3f}, {np.quantile(delivery, 0.95):.3f}"),
        ("provider, polling", f"{100 * polling:.1f} % of a core"),
        ("provider, in rounds", f"{100 * working:.1f} % of a core"),
        ("provider, peak MB", f"{found['rss_peak_kb'] / 1024:.0f}"),
        ("refused requests", str(found["refused"])),
    ]
    table(("figure", "value"), rows)
    return 0 if min(found["answers"]) == sites else 1


def _share(samples: list[dict[str, Any]]) -> float:
    """Of a core, between the first and the last of these samples."""
    if len(samples) < 2:
        return float("nan")
    first, last = samples[0], samples[-1]
    return float((last["cpu"] - first["cpu"]) / (last["time"] - first["time"]))


def soaked(found: dict[str, Any]) -> int:
    """Print what grew."""
    grown, rows = False, []
    begin = found["samples"][0]["time"]
    for name in dict.fromkeys(sample["process"] for sample in found["samples"]):
        late = [s for s in found["samples"] if s["process"] == name and s["time"] >= begin + WARM]
        if len(late) < 5:
            say(f"{len(found['seconds'])} rounds are too few to tell: {WARM:g} s are left out")
            return 0
        at = np.array([sample["round"] for sample in late]) / 1000
        for what, most in GROWTH.items():
            values = np.array([sample[what] for sample in late], dtype=float)
            slope, level = map(float, np.polyfit(at, values, 1))
            noise = float(np.std(values - slope * at - level))  # threads come and go between two samples
            rises = slope > most and slope * float(at[-1] - at[0]) > 3 * noise
            grown |= rises
            rows.append((name, what, int(values[0]), int(values[-1]), f"{slope:+.2f}", "GROWS" if rises else "ok"))
    table(("process", "figure", "first", "last", "per 1,000 rounds", ""), rows)
    say(f"{len(found['seconds'])} rounds, median {statistics.median(found['seconds']):.2f} s")
    return int(grown)


if __name__ == "__main__":
    sys.exit(main())
