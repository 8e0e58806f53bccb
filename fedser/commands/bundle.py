"""``fedser bundle``: look into a bundle, check its signature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedser import console

if TYPE_CHECKING:
    from fedser.bundle import BundleHeader

app = typer.Typer(help="Look into source bundles and check their signatures.", no_args_is_help=True)

_File = Annotated[
    Path | None, typer.Argument(metavar="[FILE]", help="A .safetensors bundle; the packaged one without one.")
]
_Signer = Annotated[
    str | None, typer.Option("--signer", help="The key to trust: 64 hexadecimal digits or a .pub file.")
]
_Form = Annotated[console.Format, typer.Option("--format", help="How to print the result.")]


@app.command("show")
def show(file: _File = None, signer: _Signer = None, form: _Form = console.Format.text) -> None:
    """Print a bundle's header. The signature is checked against --signer, or else against nothing."""
    from fedser.bundle import format

    path = file or format.default_path()
    if signer is not None or format.is_default(path):
        header = format.read(path, signer=signer).header
        trust = f"signature: verified, by {header.signer}"
    else:
        header = format.peek(path)
        trust = f"signature: NOT verified; claims to be by {header.signer} (give the key you trust with --signer)"
    result = {"path": str(path), "verified": "NOT" not in trust, **header.model_dump(mode="json")}
    console.emit(result, form, lambda: "\n".join([*_lines(header), trust]))


@app.command("verify")
def verify(
    file: _File = None,
    signer: _Signer = None,
    at_least: Annotated[int, typer.Option("--at-least", min=0, help="Refuse versions below this one.")] = 0,
    form: _Form = console.Format.text,
) -> None:
    """Check signature, version and content of a bundle; exit code 0 only where all is in order."""
    from fedser.bundle import format

    path = file or format.default_path()
    bundle = format.read(path, signer=signer, accepted_version=at_least)
    header = bundle.header
    result = {
        "path": str(path),
        "verified": True,
        "name": header.name,
        "version": header.version,
        "signer": header.signer,
        "sha256": bundle.digest,
        "tensors": len(bundle.tensors),
    }
    text = f"{path}: {header.name} version {header.version}, signed by {header.signer}: in order"
    console.emit(result, form, lambda: text)


def _lines(header: BundleHeader) -> list[str]:
    """The header for people."""
    from fedser.models.settings import PRETRAINED

    unused = frozenset() if header.model.pretrained else PRETRAINED
    parts = {
        "name": f"{header.name}, version {header.version}",
        "classes": ", ".join(header.classes),
        "corpora": ", ".join(header.corpora),
        "features": f"{header.features.kind} {header.shape}",
        "normalisation": header.normalisation.rule,
        "model": ", ".join(f"{name} {value}" for name, value in header.model.model_dump(exclude=set(unused)).items()),
        "linear peer": "yes" if header.linear else "no",
        "temperature": f"{header.temperature:.3f}",
        "held-out UAR": ", ".join(f"{name} {100 * value:.1f} %" for name, value in header.uar.items()) or "unknown",
        "validation": header.validation,
        "licence": header.licence,
        "adaptable": f"{len(header.adaptable)} tensors",
        "made by": ", ".join(f"{name} {value}" for name, value in header.versions.items()),
        "revision": header.revision or "unknown",
    }
    return [f"{name + ':':<14} {value}" for name, value in parts.items()]
