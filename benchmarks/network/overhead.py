"""What a round costs beyond the sites' own work: fedser's nodes beside stock Flower on the same machine.

Three sites that answer at once, models of 100, 10 million and 95 million float32 values. fedser: one provider
process and three site processes over TLS, see ``stub.py``. Flower: ``flower-superlink`` and three
``flower-supernode`` as they come (app processes started by them; without TLS, which favours Flower), with FedAvg and
a client that adds a constant; it is left out with ``--no-flower``. Rounds are timed first; then two more rounds of
each go through a counting proxy, for the bytes. Overhead is a round's seconds minus the slowest site's own: reading
the order, signing and laying out the update (for Flower nothing is subtracted). Each part is kept: the script goes on
where it was stopped::

    python benchmarks/network/overhead.py --out out/overhead [--sizes 100,10000000,95000000] [--quick]
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from counting import CountingProxy
from machine import REPOSITORY, Processes, Results, arguments, free_port, json_lines, say, table
from stub import make_keys

from fedser import files

SITES = 3
SIZES = "100,10000000,95000000"
GOAL_SECONDS, GOAL_RATIO = 0.6, 1.02
ROUNDS = {100: 30, 10_000_000: 8}


def main() -> int:
    """Measure, print, write JSON."""
    given = arguments(
        __doc__,
        ("--sizes", {"default": "100,1000000" if "--quick" in sys.argv else SIZES, "help": "values of the models"}),
        ("--no-flower", {"action": "store_true", "help": "leave stock Flower out"}),
    )
    results = Results(given.out, {"quick": given.quick, "sites": SITES})
    kinds = {"fedser": fedser} | ({} if given.no_flower else {"flower": flower})
    rows: list[tuple[object, ...]] = []
    for values in map(int, given.sizes.split(",")):
        rounds = 4 if given.quick else ROUNDS.get(values, 5)
        for kind, measure in kinds.items():
            timed = results.part(f"{kind}-{values}", partial(measure, given.out, values, rounds, False))
            counted = results.part(f"{kind}-{values}-bytes", partial(measure, given.out, values, 2, True))
            rows.append(_row(kind, values, timed, counted))
            say(f"{kind}, {values:,} values: {timed['seconds']}")
    columns = (
        "nodes",
        "values",
        "first s",
        "round s",
        "site's own s",
        "overhead s",
        "server MB",
        "site MB",
        "wire/schema",
    )
    table(columns, rows)
    small = [row for row in rows if row[0] == "fedser" and row[1] == "100"]
    late = [row for row in small if float(str(row[5])) > GOAL_SECONDS]
    heavy = [row for row in rows if row[0] == "fedser" and row[1] != "100" and float(str(row[8])) > GOAL_RATIO]
    say(f"goals: at most {GOAL_SECONDS} s beyond the sites' own for 100 values: {'missed' if late else 'met'}; ")
    say(f"at most {GOAL_RATIO} x the schema's bytes for the others: {'missed' if heavy else 'met'}")
    return 1 if late or heavy else 0


def _row(kind: str, values: int, timed: dict[str, Any], counted: dict[str, Any]) -> tuple[object, ...]:
    later = timed["seconds"][1:]
    over = [whole - own for whole, own in zip(timed["seconds"], timed["own"], strict=True)][1:]
    return (
        kind,
        str(values) if values < 1000 else f"{values / 1e6:g}M",
        timed["seconds"][0],
        statistics.median(later),
        statistics.median(timed["own"][1:]),
        f"{statistics.median(over):.3f}",
        f"{timed['server_mb']:.0f}",
        f"{timed['site_mb']:.0f}",
        f"{counted['wire'] / counted['schema']:.4f}",
    )


def fedser(out: Path, values: int, rounds: int, count: bool) -> dict[str, Any]:
    """fedser's nodes with sites that answer at once."""
    folder = _fresh(out / f"fedser-{values}")
    port = free_port()
    with Processes(folder / "logs") as processes, CountingProxy(port) as proxy:
        config = {
            "folder": str(folder),
            "sites": SITES,
            "processes": SITES,
            "values": values,
            "rounds": rounds,
            "port": port,
            "proxy_port": proxy.port if count else port,
            "trace": True,
            "idle": 0.0,
        }
        make_keys(folder, SITES)
        files.write_text(folder / "config.json", json.dumps(config))
        stub = Path(__file__).with_name("stub.py")
        processes.start("provider", [sys.executable, stub, "provider", folder / "config.json"])
        names = [f"sites-{number}" for number in range(SITES)]
        for number, name in enumerate(names):
            processes.start(name, [sys.executable, stub, "sites", folder / "config.json", str(number)])
        processes.wait(["provider", *names], 3600)
        wire = proxy.up + proxy.down
    told = [line for line in json_lines(folder / "provider.jsonl") if line["event"] == "round"]
    sites = [line for name in names for line in json_lines(folder / f"{name}.jsonl")]
    about = json.loads((folder / "provider.json").read_text())
    peaks = [json.loads((folder / f"{name}.json").read_text())["rss_peak_kb"] for name in names]
    return {
        "seconds": [round(line["seconds"], 3) for line in told],
        "own": [max(s["ready"] - s["received"] for s in sites if s["round"] == line["round"]) for line in told],
        "server_mb": about["rss_peak_kb"] / 1024,
        "site_mb": max(peaks) / 1024,
        "wire": wire,
        "schema": about["schema_bytes"],
    }


def flower(out: Path, values: int, rounds: int, count: bool) -> dict[str, Any]:
    """Stock Flower with clients that echo; bytes of the schema are the arrays there and back."""
    folder = _fresh(out / f"flower-{values}")
    port, nodes = free_port(), [free_port() for _ in range(SITES)]
    notes = folder / "notes.jsonl"
    app = folder / "app"
    shutil.copytree(Path(__file__).with_name("flower_echo"), app, ignore=shutil.ignore_patterns("__pycache__"))
    home = files.output_folder(folder / "home")
    link = f'address = "127.0.0.1:{port}"\ninsecure = true\n'
    files.write_text(home / "config.toml", f'[superlink]\ndefault = "here"\n\n[superlink.here]\n{link}')
    off = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
    }
    with Processes(folder / "logs") as processes, CountingProxy(port) as proxy:
        tools = Path(sys.executable).parent
        processes.start("superlink", [tools / "flower-superlink", "--insecure", "--port", str(port)], **off)
        _listening(processes, "superlink", port)
        for number, own in enumerate(nodes):
            link = f"127.0.0.1:{proxy.port if count else port}"
            options = ("--insecure", "--superlink", link, "--port", str(own))
            processes.start(f"supernode-{number}", [tools / "flower-supernode", *options], **off)
        config = f'values={values} rounds={rounds} sites={SITES} notes="{notes}"'
        processes.start("flwr", [tools / "flwr", "run", app, "here", "--run-config", config], **off)
        processes.wait(["flwr"], 120)
        _rounds_done(processes, notes, rounds)
        wire = proxy.up + proxy.down
        peaks = dict(processes.peaks)
    told = json_lines(notes)
    if any(line["answers"] != SITES for line in told):
        raise SystemExit(f"a client of stock Flower did not answer: {told}")
    return {
        "seconds": [round(line["seconds"], 3) for line in told],
        "own": [0.0] * len(told),
        "server_mb": sum(kb for name, kb in peaks.items() if name.startswith("superlink")) / 1024,
        "site_mb": sum(kb for name, kb in peaks.items() if name.startswith("supernode-0")) / 1024,
        "peaks_kb": peaks,
        "wire": wire,
        "schema": 2 * 4 * values * SITES * rounds,
    }


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    return folder


def _listening(processes: Processes, name: str, port: int) -> None:
    import socket

    end = time.monotonic() + 60
    while time.monotonic() < end and processes.running[name].poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"{name} does not listen:\n{processes.log(name)[-2000:]}")


def _rounds_done(processes: Processes, notes: Path, rounds: int) -> None:
    end = time.monotonic() + 3600
    while len(json_lines(notes)) < rounds:
        if time.monotonic() > end or processes.running["superlink"].poll() is not None:
            raise SystemExit(f"stock Flower did not finish:\n{processes.log('superlink')[-2000:]}")
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
