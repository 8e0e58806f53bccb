"""``fedser attack``: what updates give away, and whether the private policy keeps it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedser import console


def attack(
    config: Annotated[Path, typer.Argument(help="A YAML file, such as configs/attack/quick.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, such as corpora.ravdess=DIR."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what the lab draws; never of keys, noise or masks.")] = None,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Attack a federation without a defence, under the default policy and under the private one.

    Exit code 0: every control succeeded and every bar is kept. 51: an attack failed where nothing is defended, so that
    the run proves nothing. 50: the private policy let more through than a bar allows.
    """
    from fedser.attacks.run import run
    from fedser.attacks.settings import AttackSettings
    from fedser.compute import one_thread
    from fedser.config import load
    from fedser.errors import BarError, ControlError

    one_thread()
    chosen = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    results = run(load(AttackSettings, config, chosen), out, command=shlex.join(["fedser", *sys.argv[1:]]))
    told = {key: results[key] for key in ("controls_failed", "bars_missed", "summary", "report", "seconds")}
    failed, over = results["controls_failed"], results["bars_missed"]
    if failed:
        raise ControlError(
            f"{len(failed)} controls failed: {'; '.join(failed)}.",
            f"Give the attacker more shadow sites or rounds; {results['summary']} has the figures.",
        )
    if over:
        raise BarError(
            f"{len(over)} bars are missed: {'; '.join(over)}.",
            f"Raise the private policy's noise or lower its clip; {results['summary']} has the figures.",
        )
    console.emit(told, form, lambda: Path(results["summary"]).read_text(encoding="utf-8"))
