"""``fedser predict``: answers for files and folders."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Form(StrEnum):
    """How the answers are printed."""

    csv = "csv"
    json = "json"


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Audio files, folders or manifests.")],
    model: Annotated[
        Path | None, typer.Option(help="A bundle, an adapted model, or the folder of 'fedser adapt'.")
    ] = None,
    signer: Annotated[str | None, typer.Option(help="Public key that must have signed the bundle.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Name of the corpus' reader.")] = None,
    speaker_from: Annotated[
        str | None, typer.Option(help="Speakers: parent, grandparent, none, or a regular expression.")
    ] = None,
    update: Annotated[
        bool,
        typer.Option("--update", help="Let each utterance update its speaker's statistics first, and keep them."),
    ] = False,
    unknown_below: Annotated[float | None, typer.Option(min=0, max=1, help="Answer 'unknown' below this.")] = None,
    device: Annotated[str, typer.Option(help="Device for feature extraction: auto, cpu, cuda.")] = "auto",
    form: Annotated[Form, typer.Option("--format", help="csv or json.")] = Form.csv,
) -> None:
    """Answer with an emotion and a calibrated confidence; each row says which statistics normalised it."""
    from fedser.compute import one_thread
    from fedser.evaluate.outputs import table
    from fedser.evaluate.predict import answer_files

    one_thread()
    given = answer_files(
        files,
        model,
        signer=signer,
        corpus=corpus,
        speaker_from=speaker_from,
        update=update,
        unknown_below=unknown_below,
        device=device,
    )
    if form is Form.csv:
        sys.stdout.write(table(given.utterances, given.site, given.answer))
        return
    classes = given.site.header.classes
    rows = [
        {
            "path": str(utterance.path),
            "start": utterance.start,
            "end": utterance.end,
            "channel": utterance.channel,
            "speaker": utterance.speaker,
            "emotion": given.answer.emotions[k],
            "confidence": round(given.answer.confidences[k], 4),
            "probabilities": dict(
                zip(classes, [round(p, 4) for p in given.answer.probabilities[k].tolist()], strict=True)
            ),
            "statistics": given.answer.statistics[k],
        }
        for k, utterance in enumerate(given.utterances)
    ]
    sys.stdout.write(
        json.dumps({"model": given.model, "predictions": rows, "set_aside": given.set_aside}, ensure_ascii=False) + "\n"
    )
