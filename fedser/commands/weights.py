"""``fedser weights``: the store of pretrained encoders' weights."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from fedser import console
from fedser.errors import UsageError

app = typer.Typer(help="Weights of pretrained encoders on this machine.", no_args_is_help=True)


class Family(StrEnum):
    """Families of pretrained encoders."""

    wav2vec2 = "wav2vec2"
    hubert = "hubert"
    wavlm = "wavlm"


class Size(StrEnum):
    """Their sizes."""

    tiny = "tiny"
    base = "base"
    large = "large"
    large_lv60k = "large_lv60k"


_Form = Annotated[console.Format, typer.Option("--format", help="How to print the result.")]


@app.command("fetch")
def fetch(
    source: Annotated[
        str, typer.Argument(help="A torchaudio pipeline, as WAVLM_BASE_PLUS; or a .safetensors or state-dict file.")
    ],
    encoder: Annotated[Family | None, typer.Option("--encoder", help="Needed for a file.")] = None,
    size: Annotated[Size, typer.Option("--size", help="Of the encoder in a file.")] = Size.base,
    form: _Form = console.Format.text,
) -> None:
    """Put weights into the store, and print the digest by which bundles name them."""
    from fedser.pretrained import weights

    family, kind = weights.PIPELINES.get(source, (encoder.value if encoder else "", size.value))
    if not family:
        raise UsageError("Nothing says which encoder this file holds.", "Add --encoder wav2vec2, hubert or wavlm.")
    digest = weights.obtain(source, family, kind)
    result = {"encoder": family, "size": kind, "weights": digest, "file": str(weights.path_of(digest))}
    console.emit(result, form, lambda: f"{digest}  {family} {kind}, in {result['file']}")


@app.command("list")
def listing(form: _Form = console.Format.text) -> None:
    """Print the digests of what is in the store."""
    from fedser.pretrained import weights

    found = sorted(weights.root().glob("*.safetensors")) if weights.root().is_dir() else []
    lines = [f"{path.stem}  {path.stat().st_size / 2**20:.0f} MiB" for path in found]
    result = {"store": str(weights.root()), "weights": [path.stem for path in found]}
    console.emit(result, form, lambda: "\n".join([f"store: {weights.root()}", *(lines or ["empty"])]))
