"""``fedser-client join``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console
from fedser_client.commands import options


def join(
    invitation: Annotated[Path, typer.Argument(metavar="INVITATION", help="The file that the provider gave you.")],
    data: Annotated[Path, typer.Option(help="The site's recordings: a folder, a corpus or a manifest.")],
    state: options.State = options.DEFAULT_STATE,
    policy: Annotated[
        Path | None, typer.Option(help="The site's policy; policy.yaml in the state folder without it.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="The emotions that occur at the site: a,b,c.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Name of the corpus' reader.")] = None,
    speaker_from: Annotated[
        str | None, typer.Option(help="Speakers: parent, grandparent, none, or a regular expression.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    proxy: Annotated[
        str | None, typer.Option(metavar="URL", help="HTTP proxy; HTTPS_PROXY of the environment without it.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="What adapts a bundle published without rounds; without it the guard tries several."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would leave this site, and stop.")] = False,
    once: options.Once = False,
    patience: options.Patience = None,
    form: Annotated[console.Format, typer.Option("--format", help="text or json.")] = console.Format.text,
) -> None:
    """Join a study: fetch and verify the model, adapt it to your recordings, answer orders that your policy allows."""
    from fedser_client import dryrun
    from fedser_client.join import Asked
    from fedser_client.join import join as work
    from fedser_client.patience import Patience

    asked = Asked(
        data=data,
        policy=policy,
        classes=tuple(part.strip() for part in classes.split(",") if part.strip()) if classes is not None else None,
        corpus=corpus,
        speaker_from=speaker_from,
        device=device,
        proxy=proxy,
        method=method,
    )
    result = work(
        *(invitation, asked, state),
        patience=Patience(patience),
        command=options.command(),
        dry_run=dry_run,
        once=once,
    )
    console.emit(result, form, lambda: dryrun.text(result) if dry_run else options.text(result))
