"""``fedser corpus``: look into a folder of recordings before using it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console
from fedser.console import Format

app = typer.Typer(help="Look into recordings before using them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look into recordings before using them."""


@app.command()
def scan(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of recordings, a manifest, or one file.")],
    corpus: Annotated[str | None, typer.Option(help="Read file names as those of this corpus.")] = None,
    speaker_from: Annotated[
        str | None,
        typer.Option(metavar="RULE", help="Speakers: parent, grandparent, none, or a regular expression."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How to print the result.")] = Format.text,
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write quarantine.csv here.")] = None,
) -> None:
    """Count utterances by emotion and speaker, durations and rates, and show what is set aside and why."""
    from fedser import files
    from fedser.audio import quality, recordings, summary

    if out is not None:
        files.output_folder(out)
    found = recordings.resolve(directory, corpus=corpus, speaker_from=speaker_from)
    inspection = quality.inspect(found.utterances, found.aside)
    result = summary.summarise(found, inspection)
    if out is not None:
        quality.write_quarantine(out / "quarantine.csv", inspection)
        result["quarantine"] = str(out / "quarantine.csv")
    console.emit(result, form, lambda: summary.as_text(result))
