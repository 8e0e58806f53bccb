"""``fedser adapt``: one site, no network."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from fedser import console


def adapt(
    data: Annotated[Path, typer.Option(help="The site's recordings: a folder, a corpus or a manifest.")],
    out: Annotated[Path, typer.Option(help="Folder for the model, the predictions and the report.")],
    bundle: Annotated[Path | None, typer.Option(help="Source bundle; the packaged one without it.")] = None,
    signer: Annotated[str | None, typer.Option(help="Public key that must have signed the bundle.")] = None,
    method: Annotated[
        str | None, typer.Option(help="shot, nrc, aad, ecan, logreg_self, …; without it the guard tries several.")
    ] = None,
    guard: Annotated[
        bool,
        typer.Option(help="Let label-free scores decide whether the adapted model or the source model is kept."),
    ] = True,
    option: Annotated[list[str] | None, typer.Option(help="A setting of the method: key=value.")] = None,
    classes: Annotated[str | None, typer.Option(help="The emotions that occur at the site: a,b,c.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Name of the corpus' reader.")] = None,
    speaker_from: Annotated[
        str | None, typer.Option(help="Speakers: parent, grandparent, none, or a regular expression.")
    ] = None,
    normalisation: Annotated[str | None, typer.Option(help="auto, corpus, speaker or shrunk.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the recordings.")] = None,
    unknown_below: Annotated[float, typer.Option(min=0, max=1, help="Answer 'unknown' below this.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Adapt a source model to unlabelled recordings; labels, where there are any, serve the metrics alone.

    A guard chooses among several methods and the source model itself, or, with --method, between that method and the
    source model.
    """
    from fedser.evaluate.local import LocalSettings, run

    settings = LocalSettings(
        data=data,
        bundle=bundle,
        signer=signer,
        method=method,
        guard=guard,
        options=tuple(option or ()),
        classes=tuple(part.strip() for part in classes.split(",") if part.strip()) if classes is not None else None,
        corpus=corpus,
        speaker_from=speaker_from,
        normalisation=normalisation,
        epochs=epochs,
        unknown_below=unknown_below,
        seed=seed,
        device=device,
    )
    result = run(settings, out, command=shlex.join(["fedser", *sys.argv[1:]]))
    console.emit(result, form, lambda: _text(result))


def _text(result: dict[str, object]) -> str:
    metrics = result["metrics"]
    lines = [
        f"{result['utterances']} utterances, method {result['method']}, {result['seconds']} s",
        f"normalisation: {result['normalisation']}. {result['normalisation_reason']}",
    ]
    guard = result["guard"]
    if isinstance(guard, dict):
        lines.append(f"guard: chose {guard['chosen']} of {', '.join(guard['candidates'])}. {guard['reason']}")
    if isinstance(metrics, dict):
        lines.append(
            f"UAR {metrics['uar']:.1f} %  WAR {metrics['war']:.1f} %  macro-F1 {metrics['macro_f1']:.1f} % on "
            f"{metrics['scored']} labelled utterances (source model: UAR {metrics['source_uar']:.1f} %)"
        )
    else:
        lines.append("no labels, so no metrics")
    lines += [f"{name}: {result[name]}" for name in ("model", "predictions", "report")]
    return "\n".join(lines)
