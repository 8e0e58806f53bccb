"""The corpora of a benchmark: loaded once, and put together as a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch

from fedser.audio import dataset
from fedser.audio.dataset import SpeechData
from fedser.audio.normalise import NormalisationSettings, SiteNormaliser
from fedser.errors import FedserError
from fedser.evaluate.bench.contest import Labelled
from fedser.evaluate.bench.pairs import Pair
from fedser.evaluate.bench.settings import BenchSettings
from fedser.evaluate.bench.telephone import over_telephone
from fedser.models import features_for

CLEAN, TELEPHONE = "", "telephone"
Corpora = Mapping[tuple[str, str, str], SpeechData]  # (name, features, line)


def load(
    settings: BenchSettings, pairs: Iterable[Pair], device: torch.device
) -> dict[tuple[str, str, str], SpeechData]:
    """Read every corpus that a pair names, and the targets once more over the telephone where that is asked for.

    Raises:
        FedserError: recordings, labels or settings do not fit; the message names the corpus.
    """
    pairs = list(pairs)
    names = sorted({name for pair in pairs for name in (*pair.sources, pair.target)})
    loaded: dict[tuple[str, str, str], SpeechData] = {}
    for kind in settings.features:
        for name in names:
            loaded[name, kind, CLEAN] = read(settings, name, kind, device)
    if TELEPHONE in settings.target_set:
        for kind in settings.features:
            for name in sorted({pair.target for pair in pairs}):
                loaded[name, kind, TELEPHONE] = over_telephone(loaded[name, kind, CLEAN], device)
    return loaded


def read(settings: BenchSettings, name: str, kind: str, device: torch.device) -> SpeechData:
    """One corpus of the settings.

    Raises:
        FedserError: it cannot be used.
    """
    features = features_for(settings.model, kind)
    try:
        data = dataset.load(
            settings.corpora[name],
            features,
            name=name,
            corpus=settings.readers.get(name),
            speaker_from=settings.speaker_from.get(name),
            need_labels=True,
            device=device,
        )
    except FedserError as error:
        raise type(error)(f"The corpus {name} cannot be used: {error}", error.hint) from None
    return replace(data, name=name)


def labelled(parts: Sequence[SpeechData], classes: Sequence[str], rule: NormalisationSettings) -> Labelled:
    """The source of a pair: utterances of the classes, each corpus normalised inside itself.

    Speakers of several corpora become ``corpus/speaker``, so that equal ids stay two speakers.
    """
    xs, ys, raws, speakers = [], [], [], list[str | None]()
    for part in parts:
        own = part.subset([i for i, emotion in enumerate(part.emotions) if emotion in classes])
        xs.append(SiteNormaliser.fit(own.raw, own.speakers, rule).transform(own.raw, own.speakers))
        ys.append(own.labels(classes))
        raws.append(own.raw)
        prefix = f"{part.name}/" if len(parts) > 1 else ""
        speakers += [None if speaker is None else prefix + speaker for speaker in own.speakers]
    statistics = SiteNormaliser.fit(torch.cat(raws), speakers, rule)
    return Labelled(torch.cat(xs), torch.cat(ys), tuple(speakers), statistics)
