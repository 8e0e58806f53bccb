"""``fedser simulate``: a federation in one process."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedser import console


def simulate(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/simulate/emovo_to_emodb.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for results and report.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as source.corpora.emovo=DIR."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes of one thread each; seeds run beside each other.")] = 1,
    seed: Annotated[int | None, typer.Option(help="Run this seed alone.")] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda or cuda:0; the CPU is fastest for small models.")
    ] = "cpu",
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Compare the source model, sites alone, sites in a federation, and all data in one place."""
    from fedser.compute import device as choose
    from fedser.config import load
    from fedser.evaluate.results import table
    from fedser.evaluate.simulate import run
    from fedser.evaluate.simulation_settings import SimulationSettings
    from fedser.models import resolve

    chosen = [*(overrides or []), *([] if seed is None else [f"seeds=[{seed}]"])]
    settings = load(SimulationSettings, config, chosen)
    if settings.source.corpora:  # a bundle names its encoder's weights by digest already
        model, features = resolve(settings.source.model, settings.source.features)
        own = settings.source.model_copy(update={"model": model, "features": features})
        settings = settings.model_copy(update={"source": own})
    command = shlex.join(["fedser", *sys.argv[1:]])
    results = run(settings, out, jobs=jobs, device=choose(device), command=command)
    summary = {
        "uar": results["uar"],
        "report": results["report"],
        "seconds": results["seconds"],
        "peak_memory_mb": results["peak_memory_mb"],
        "results": str(out / "results.json"),
    }
    console.emit(summary, form, lambda: f"{table(results)}\nreport: {results['report']}")
