"""``fedser train``: labelled corpora to a signed source bundle."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedser import console
from fedser.commands.words import GROUPS, pairs, source_settings
from fedser.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from fedser.audio.dataset import SpeechData
    from fedser.audio.features import FeatureSettings
    from fedser.bundle import SigningKey
    from fedser.train.source import Source


class Features(StrEnum):
    """Kinds of features that a bundle can be trained on."""

    functionals = "functionals"
    egemaps = "egemaps"
    logmel = "logmel"


class Encoder(StrEnum):
    """Encoders of the classifier."""

    auto = "auto"
    mlp = "mlp"
    vgg11 = "vgg11"
    resnet = "resnet"
    wav2vec2 = "wav2vec2"
    hubert = "hubert"
    wavlm = "wavlm"


class Norm(StrEnum):
    """Normalisation layers; Opacus accepts layer and group."""

    batch = "batch"
    layer = "layer"
    group = "group"


class Rule(StrEnum):
    """Rules of feature normalisation inside each corpus."""

    auto = "auto"
    corpus = "corpus"
    speaker = "speaker"
    shrunk = "shrunk"


_KINDS = "noise, room, telephone, mulaw, gsm, gain"
_ENCODER = "auto: mlp, or resnet for logmel; the pretrained ones bring their own features."


def train(
    corpora: Annotated[
        list[str], typer.Option("--corpora", metavar="NAME=DIR", help="A labelled corpus; may be given again.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The bundle to write, NAME.safetensors.")],
    more: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=DIR | KEY=VALUE]...",
            help="Further corpora; settings as model.KEY=VALUE, train.KEY=VALUE or features.KEY=VALUE.",
        ),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Private signing key; the user's own without one.")] = None,
    features: Annotated[Features, typer.Option("--features", help="What is computed.")] = Features.functionals,
    encoder: Annotated[Encoder, typer.Option("--encoder", help=_ENCODER)] = Encoder.auto,
    norm: Annotated[Norm, typer.Option("--norm", help="Normalisation layers.")] = Norm.batch,
    normalisation: Annotated[
        Rule, typer.Option("--normalisation", help="Of the features, inside each corpus.")
    ] = Rule.auto,
    classes: Annotated[
        str | None, typer.Option("--classes", help="Emotions to tell apart, with commas; all without it.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="LABEL=LABEL", help="Rename an emotion, for instance calm=neutral."),
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", min=1, help="Of the schedule.")] = None,
    augment: Annotated[str, typer.Option("--augment", help=f"none, or some of {_KINDS}, with commas.")] = "none",
    name: Annotated[str | None, typer.Option("--name", help="Of the bundle; the file's without one.")] = None,
    version: Annotated[int, typer.Option("--bundle-version", min=1, help="Must grow with each release.")] = 1,
    licence: Annotated[str, typer.Option("--licence", help="Terms of the weights.")] = "not stated",
    seed: Annotated[int, typer.Option("--seed", help="Of everything random.")] = 0,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    form: Annotated[console.Format, typer.Option("--format", help="How to print the result.")] = console.Format.text,
) -> None:
    """Train a source model on labelled corpora and write it as a signed bundle."""
    words = [*corpora, *(more or [])]
    changes = [word for word in words if word.startswith(GROUPS)]
    places = pairs(
        [word for word in words if word not in changes], "--corpora", "NAME=DIR, for instance emodb=recordings/emodb"
    )
    for corpus in places:
        if corpus != Path(corpus).name or corpus == "..":
            raise UsageError(
                f"'{corpus}' cannot name a corpus.", "A corpus' name is part of file names: leave out '/'."
            )
    mapping = pairs(rename or [], "--map", "LABEL=LABEL, for instance calm=neutral")
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out} does not end in .safetensors.", "Name the bundle NAME.safetensors.")

    from fedser import compute, files
    from fedser.audio.normalise import NormalisationSettings
    from fedser.bundle import format
    from fedser.models import resolve
    from fedser.train import train_bundle

    compute.one_thread()
    chosen = encoder.value if encoder is not Encoder.auto else "resnet" if features is Features.logmel else "mlp"
    values = {"model": {"encoder": chosen, "norm": norm.value}, "features": {"kind": features.value}}
    model, settings, kind = source_settings(values, epochs, augment, changes)
    wanted = _classes(classes)
    place = compute.device(device)
    files.output_folder(out.parent)
    model, kind = resolve(model, kind)
    signing = _key(key)
    data = {corpus: _load(corpus, Path(where), kind, mapping, place) for corpus, where in places.items()}
    source = train_bundle(
        data,
        key=signing,
        name=name or out.stem,
        licence=licence,
        version=version,
        classes=wanted,
        model=model,
        settings=settings,
        normalisation=NormalisationSettings(rule=normalisation.value),
        seed=seed,
        device=place,
    )
    format.write(out, source.header, source.tensors, signing)
    aside = _set_aside(out, data)
    console.emit(_result(out, source, data, aside), form, lambda: _text(out, source, data, aside, key))


def _classes(given: str | None) -> tuple[str, ...] | None:
    from fedser.audio import labels

    if given is None:
        return None
    words = [word.strip() for word in given.split(",") if word.strip()]
    if not words:
        raise UsageError("--classes names no emotion.", "Give at least two, for instance anger,neutral.")
    return tuple(dict.fromkeys(labels.emotion(word, Path("--classes")) for word in words))


def _key(path: Path | None) -> SigningKey:
    """The key to sign with; the user's own is made on first use."""
    from fedser.bundle import keys

    if path is not None:
        return keys.load(path)
    own = keys.default_path()
    if own.exists():
        console.say(f"signing with your key {own}")
        return keys.load(own)
    console.say(f"made a signing key for you: {own} (keep it to yourself; others get {keys.public_path(own)})")
    return keys.create(own)


def _load(
    corpus: str, place: Path, kind: FeatureSettings, mapping: Mapping[str, str], device: torch.device
) -> SpeechData:
    """One corpus; a name that a reader bears chooses that reader."""
    from fedser.audio import dataset, labels
    from fedser.audio.corpora import CORPORA
    from fedser.train.source import renamed

    names = {labels.emotion(old, Path("--map")): labels.emotion(new, Path("--map")) for old, new in mapping.items()}
    reader = corpus if corpus in CORPORA else None
    data = dataset.load(place, kind, name=corpus, corpus=reader, need_labels=True, device=device)
    return renamed(data, names)


def _set_aside(out: Path, data: Mapping[str, SpeechData]) -> dict[str, str]:
    """Write what was set aside of each corpus beside the bundle."""
    from fedser.audio import quality

    written = {}
    for corpus, part in data.items():
        inspection = part.inspection
        if inspection is not None and (inspection.quarantined or inspection.flagged):
            path = out.with_name(f"{out.stem}.{corpus}.quarantine.csv")
            quality.write_quarantine(path, inspection)
            written[corpus] = str(path)
    return written


def _result(out: Path, source: Source, data: Mapping[str, SpeechData], aside: Mapping[str, str]) -> dict[str, object]:
    header = source.header
    return {
        "bundle": str(out),
        "name": header.name,
        "version": header.version,
        "signer": header.signer,
        "classes": list(header.classes),
        "utterances": {corpus: int((part.labels(header.classes) >= 0).sum()) for corpus, part in data.items()},
        "left_out": {corpus: int((part.labels(header.classes) < 0).sum()) for corpus, part in data.items()},
        "uar": {corpus: round(100 * value, 2) for corpus, value in header.uar.items()},
        "validation": header.validation,
        "temperature": header.temperature,
        "epochs": source.trained.epochs,
        "quarantine": dict(aside),
    }


def _text(out: Path, source: Source, data: Mapping[str, SpeechData], aside: Mapping[str, str], key: Path | None) -> str:
    from fedser.bundle import keys

    result = _result(out, source, data, aside)
    lines = [f"{out}: {source.header.name} version {source.header.version}, {', '.join(source.header.classes)}"]
    for corpus, part in data.items():
        used = int((part.labels(source.header.classes) >= 0).sum())
        told = f"{corpus}: {used} utterances"
        if used < len(part):
            told += f" ({len(part) - used} without one of these emotions were left out)"
        if corpus in source.header.uar:
            told += f", UAR on held-out speakers {100 * source.header.uar[corpus]:.1f} %"
        lines.append(told)
        if corpus in aside:
            lines.append(f"  set aside or flagged: see {aside[corpus]}")
    lines.append(f"validation: {result['validation']}; temperature {source.header.temperature:.3f}")
    public = keys.public_path(key or keys.default_path())
    lines.append(f"use it with: --bundle {out} --signer {public}")
    return "\n".join(lines)
