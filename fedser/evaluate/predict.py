"""Answers for files and folders, with the source model or an adapted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from fedser import bundle as bundles
from fedser import compute, console
from fedser.adapt.site import Answer, SiteModel, check_threshold
from fedser.audio import dataset
from fedser.audio.utterance import Utterance
from fedser.errors import NoAudioError, UsageError


@dataclass(frozen=True)
class Given:
    """Answers for utterances, the model that gave them, and what was set aside with its reason."""

    utterances: tuple[Utterance, ...]
    site: SiteModel
    answer: Answer
    model: str
    set_aside: list[dict[str, str]]


def open_model(place: Path | None, signer: str | None = None) -> tuple[SiteModel, Path | None]:
    """Find the model that ``place`` means: a folder of ``fedser adapt``, its file, a bundle, or the default.

    Returns:
        The model, and the file of an adapted model (None for a bundle, which is never written to).

    Raises:
        BundleError: it is none of them, or the bundle cannot be trusted.
    """
    if place is None:
        return SiteModel.of_bundle(bundles.read(None)), None
    file = place / "model.safetensors" if place.is_dir() else place
    if place.is_dir() or (signer is None and not bundles.format.signature_path(file).exists()):
        return SiteModel.load(file), file
    return SiteModel.of_bundle(bundles.read(file, signer=signer)), None


def answer_files(
    paths: Sequence[Path],
    model: Path | None,
    *,
    signer: str | None = None,
    corpus: str | None = None,
    speaker_from: str | None = None,
    update: bool = False,
    unknown_below: float | None = None,
    device: str = "auto",
) -> Given:
    """Read, normalise and answer; with ``update`` the adapted model's statistics are kept on disk.

    Raises:
        NoAudioError: nothing can be read.
        UsageError: ``update`` on a bundle, which has no site to keep statistics for; a threshold outside 0 to 1.
    """
    site, file = open_model(model, signer)
    if update and file is None:
        raise UsageError(
            "A source bundle keeps no statistics of a site.",
            "Run 'fedser adapt' first, and name its folder as --model.",
        )
    kept = site
    if unknown_below is not None:
        check_threshold(unknown_below)
        header = site.header.model_copy(update={"unknown_below": unknown_below})
        site = SiteModel(header, site.model, site.normaliser)
    place = compute.device(device)
    parts, aside = [], []
    for path in paths:
        try:
            part = dataset.load(path, site.header.features, corpus=corpus, speaker_from=speaker_from, device=place)
        except NoAudioError as error:
            if len(paths) == 1:
                raise
            aside.append({"path": str(path), "reason": str(error)})
            continue
        parts.append(part)
        if part.inspection is not None:
            aside += [{"path": str(f.utterance.path), "reason": f.reason} for f in part.inspection.quarantined]
    if not parts:
        raise NoAudioError("None of the given files can be used.", "'fedser corpus scan' lists the reasons.")
    for item in aside:
        console.say(f"set aside: {item['path']}: {item['reason']}")
    utterances = tuple(u for part in parts for u in part.utterances)
    raw = torch.cat([part.raw for part in parts])
    answer = site.answer(raw, [u.speaker for u in utterances], update=update)
    if update and file is not None:
        kept.save(file)  # with its own threshold: --unknown-below holds for these answers alone
    name = f"{site.header.bundle} {site.header.bundle_version}, {site.header.method}"
    return Given(utterances, site, answer, name, aside)
