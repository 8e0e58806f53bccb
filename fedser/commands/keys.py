"""``fedser keys``: signing keys for bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedser import console

app = typer.Typer(help="Signing keys for bundles.", no_args_is_help=True)

_Out = Annotated[
    Path | None, typer.Argument(help="The private key's file; the user's configuration folder without one.")
]
_Form = Annotated[console.Format, typer.Option("--format", help="How to print the result.")]


@app.command("create")
def create(out: _Out = None, form: _Form = console.Format.text) -> None:
    """Make an Ed25519 key pair: FILE (private, for its owner only) and FILE.pub beside it."""
    from fedser.bundle import keys

    path = out or keys.default_path()
    key = keys.create(path)
    result = {"private": str(path), "public": str(keys.public_path(path)), "signer": key.public_hex}
    console.emit(
        result,
        form,
        lambda: (
            f"private key: {path} (keep it to yourself)\n"
            f"public key:  {keys.public_path(path)}\n"
            f"signer:      {key.public_hex}\n"
            "Whoever uses your bundles gives the signer, or the .pub file, after --signer."
        ),
    )


@app.command("show")
def show(file: _Out = None, form: _Form = console.Format.text) -> None:
    """Print the public half of a key, private or public."""
    from fedser.bundle import keys

    path = file or keys.default_path()
    signer = keys.signer(str(path)) if path.suffix == ".pub" else keys.load(path).public_hex
    console.emit({"file": str(path), "signer": signer}, form, lambda: signer)
