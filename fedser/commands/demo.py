"""``fedser demo``: the whole toolkit on synthetic speech, without a download."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fedser import console


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for speech, bundle and report.")] = Path(
        "fedser-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of voices, training and adaptation.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Repetitions, each with a seed of its own.")] = 3,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Processes of one thread each.")] = 1,
    network: Annotated[
        bool, typer.Option("--network", help="Provider and sites as processes of their own, over TLS on loopback.")
    ] = False,
    form: Annotated[console.Format, typer.Option("--format", help="How to print the result.")] = console.Format.text,
) -> None:
    """Synthesise emotional speech, train and sign a source model, adapt it at three sites, and report."""
    from fedser import compute

    if network:
        _network(out, seed, form)
        return
    from fedser.demo.demo import NOTE, run
    from fedser.evaluate.results import table

    compute.one_thread()
    results = run(out, seed, seeds=seeds, jobs=jobs, command=shlex.join(["fedser", *sys.argv[1:]]))
    answer = {
        "uar": results["uar"],
        "report": results["report"],
        "seconds": results["seconds"],
        "bundle": results["bundle"],
        "results": str(out / "run" / "results.json"),
        "synthetic": True,
        "note": NOTE,
    }
    closing = f"{NOTE}\n\nreport: {results['report']}  ({results['seconds']:.0f} seconds)"
    console.emit(answer, form, lambda: f"{table(results)}\n\n{closing}")


def _network(out: Path, seed: int, form: console.Format) -> None:
    from fedser import compute
    from fedser.demo.network import run

    compute.one_thread()
    results = run(out, seed)
    console.emit(results, form, lambda: _network_text(results))


def _network_text(results: dict[str, Any]) -> str:
    lines = [f"{'site':<10} {'source':>8} {'personal':>9} {'left the site':>14}  report"]
    for name, site in results["sites"].items():
        left = f"{site['bytes_left'] / 1e6:.1f} MB"
        lines.append(f"{name:<10} {site['source']:>8.1f} {site['personal']:>9.1f} {left:>14}  {site['report']}")
    seconds = f"UAR in percent; {results['rounds']} rounds, {results['seconds']:.0f} seconds"
    return "\n".join([*lines, "", seconds, "", results["note"]])
