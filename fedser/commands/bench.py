"""``fedser bench``: the benchmark table."""

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
    jobs: Annotated[int, typer.Option(min=1, help="Processes, of one thread each.")] = 1,
    device: Annotated[str, typer.Option(help="Device for feature extraction: auto, cpu, cuda.")] = "auto",
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Compare methods over pairs of corpora; every axis of CONFIG can be cut down by KEY=VALUE."""
    from fedser.compute import device as choose
    from fedser.compute import one_thread
    from fedser.config import load
    from fedser.evaluate.bench import BenchSettings, run

    one_thread()
    settings = load(BenchSettings, config, overrides or [])
    result = run(settings, out, jobs=jobs, device=choose(device), command=shlex.join(["fedser", *sys.argv[1:]]))
    console.emit(result, form, lambda: Path(result["summary"]).read_text(encoding="utf-8"))
