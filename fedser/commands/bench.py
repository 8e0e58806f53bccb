"""``fedser bench``: the benchmark tables."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedser import console


def bench(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/bench/cross_corpus.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables; started again, it goes on where it stopped.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides.")] = None,
    federated: Annotated[bool, typer.Option("--federated", help="Compare federations over partitions.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    device: Annotated[str, typer.Option(help="Device for feature extraction: auto, cpu, cuda.")] = "auto",
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Compare methods over pairs of corpora; every axis of CONFIG can be cut down by KEY=VALUE."""
    from fedser.compute import device as choose
    from fedser.compute import one_thread
    from fedser.config import load
    from fedser.evaluate import bench as benchmark
    from fedser.evaluate.bench import federated as federations
    from fedser.evaluate.bench.federated_settings import FederatedBenchSettings

    one_thread()
    command, place = shlex.join(["fedser", *sys.argv[1:]]), choose(device)
    if federated:
        settings = load(FederatedBenchSettings, config, overrides or [])
        result = federations.run(settings, out, jobs=jobs, device=place, command=command)
    else:
        plain = load(benchmark.BenchSettings, config, overrides or [])
        result = benchmark.run(plain, out, jobs=jobs, device=place, command=command)
    console.emit(result, form, lambda: Path(result["summary"]).read_text(encoding="utf-8"))
