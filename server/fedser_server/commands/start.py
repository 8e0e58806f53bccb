"""``fedser-server start``: one process that serves the bundle and runs the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console
from fedser_server.commands.options import DEFAULT_STATE, Form, StateFolder


def start(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the study, such as method.name=ecan."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The source bundle; the packaged one without it.")] = None,
    sites: Annotated[int | None, typer.Option(min=1, help="Sites that the first round waits for.")] = None,
    rounds: Annotated[int | None, typer.Option(min=0, help="Exchanges; 0 only publishes the bundle.")] = None,
    state: StateFolder = DEFAULT_STATE,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9443,
    config: Annotated[Path | None, typer.Option(help="A YAML file with the study's settings.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the study; each site's own derives from it.")] = None,
    signer: Annotated[str | None, typer.Option(help="Public key that must have signed the bundle.")] = None,
    wait: Annotated[float | None, typer.Option(min=1, help="Seconds to wait for the sites; for ever without.")] = None,
    hold: Annotated[float, typer.Option(min=0, max=25, help="Seconds for which a poll without mail is held.")] = 15.0,
    intake: Annotated[int, typer.Option(min=1, help="MiB of updates that may lie in memory at a time.")] = 512,
    certificate: Annotated[Path | None, typer.Option(help="Your own certificate's chain, PEM.")] = None,
    certificate_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    ca: Annotated[Path | None, typer.Option(help="The root certificate that sites pin, PEM.")] = None,
    folder_authority: Annotated[
        bool, typer.Option("--folder-authority", help="Go back from your own certificates to the state folder's.")
    ] = False,
    form: Form = console.Format.text,
) -> None:
    """Serve the source bundle, wait for the sites, run the rounds; goes on from the last checkpoint."""
    from fedser.config import load
    from fedser_server.node import NodeSettings
    from fedser_server.node import start as run
    from fedser_server.settings import StudySettings

    given = {"sites": sites, "rounds": rounds, "seed": seed}
    chosen = [*(overrides or []), *(f"{name}={value}" for name, value in given.items() if value is not None)]
    study = load(StudySettings, config, chosen)
    node = NodeSettings(
        bundle=bundle,
        signer=signer,
        host=host,
        port=port,
        hold=hold,
        intake=intake * 2**20,
        wait=wait,
        certificate=certificate,
        certificate_key=certificate_key,
        ca=ca,
        folder_authority=folder_authority,
    )
    result = run(state, study, node)
    console.emit(
        result, form, lambda: f"the study {result['study']} is done; the joint tensors lie in {result['joint']}"
    )
