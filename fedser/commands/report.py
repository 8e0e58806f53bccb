"""``fedser report``: make a run's report once more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The --out folder of a run.")],
    attacks: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Results of fedser attack, to stand in report and model card.")
    ] = None,
    form: Annotated[console.Format, typer.Option("--format", help="How to print the result.")] = console.Format.text,
) -> None:
    """Write the HTML report of a finished run: one file that opens offline, and its figures beside it."""
    from fedser.evaluate.report import attach, write_report

    if attacks is not None:
        from fedser.attacks.card import rows

        attach(run_dir, rows(attacks))
    path = write_report(run_dir)
    figures = sorted(str(figure) for figure in (run_dir / "figures").glob("*.svg"))
    console.emit({"report": str(path), "figures": figures}, form, lambda: f"report: {path}")
